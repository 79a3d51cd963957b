# Two commands do it all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check
PYTEST := $(BIN)/python -m pytest
WORKERS := -n auto --maxprocesses 4 --dist loadfile
NUMERICAL := tests/algebra tests/certify tests/interp tests/nn tests/polynomial tests/contract
DATA ?=
MODEL ?=
CORPUS ?=
HUNT ?= 200
IMAGES = $(if $(DATA),--data-dir $(DATA))
REPOSITORY ?=
VERSION ?=
export PYTHONDONTWRITEBYTECODE :=   # many processes start, and each would compile all that it imports

.PHONY: help demo explore test test-all test-processors hunt test-gpu test-peers check collect coverage mutation fuzz docs site clean dist changelog image
.PHONY: bench bench-real bench-sweep bench-training bench-decomposition bench-guarantees bench-ground-truth bench-polynomial-language bench-wires bench-two-layers bench-quadratic-fit
.PHONY: bench-conversion-ordinary bench-language bench-sae bench-explorer bench-installation bench-startup bench-tables study-adapters study-pretrained study-conversion

help:                            ## this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:[^#]*## */\t/' | expand -t 22
	@echo "DATA=folder with the IDX files, CORPUS=file or folder of text, MODEL=file.gguf"

demo: .venv/demo                 ## install, train on real digits, read the weights, runs/demo/report.html
	$(BIN)/bilens demo --out runs/demo

explore: .venv/demo              ## the explorer on what `make demo` made; Ctrl-C ends it
	$(PIP) -e ./explorer
	$(BIN)/bilens audit runs/demo --history runs
	$(BIN)/bilens serve runs

test: .venv/test                 ## install the test tools, then lint, types and the tests
	@$(MAKE) --no-print-directory -j 2 check collect
	$(PYTEST) $(WORKERS)

test-all: .venv/test             ## the same with the slow tests too
	@$(MAKE) --no-print-directory -j 2 check collect
	$(PYTEST) $(WORKERS) -m ""

# The types take one core; this leaves the bytecode of the tests, which each worker would make anew.
collect: .venv/test
	$(PYTEST) --collect-only -qq > .venv/collected || { cat .venv/collected; false; }

test-processors: .venv/test      ## the numerical tests under each instruction set, and on two threads
	for set in $$($(BIN)/python -m tools.instruction_sets); do \
		echo "ATEN_CPU_CAPABILITY=$$set"; ATEN_CPU_CAPABILITY=$$set $(PYTEST) $(WORKERS) $(NUMERICAL) || exit 1; done
	MKL_CBWR=COMPATIBLE $(PYTEST) $(WORKERS) $(NUMERICAL)
	OMP_WAIT_POLICY=PASSIVE BILENS_TEST_THREADS=2 $(PYTEST) -n 2 --dist loadfile $(NUMERICAL)

hunt: .venv/test                 ## the contract suite with many drawn cases of each property (HUNT=200): hours
	BILENS_HUNT=$(HUNT) $(PYTEST) $(WORKERS) tests/contract -m ""

test-gpu: .venv/test             ## the contract tests on a GPU, where CUDA finds one
	@if $(BIN)/python -c "import sys, torch; sys.exit(not torch.cuda.is_available())"; \
	then $(PYTEST) -m gpu tests/test_devices.py; else echo "not run: no CUDA device"; fi

test-peers: .venv/test           ## TransformerLens, nnsight, trackers, SAELens and circuit-tracer, which pip installs
	$(PIP) -e ".[peers,tracking]"
	$(PYTEST) tests/peers tests/test_notebooks.py
	$(PYTHON) -m venv .venv/saes     # SAELens asks for a TransformerLens below 4, circuit-tracer for older transformers
	.venv/saes/bin/pip install --quiet -e ".[test]" "sae-lens>=6.54"
	.venv/saes/bin/pip install --quiet --no-deps "circuit-tracer==0.5.0"
	.venv/saes/bin/python -m pytest tests/peers/test_saelens.py tests/peers/test_circuit_tracer.py

check: .venv/test                ## lint and types only
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

coverage: .venv/test             ## the tests with branch coverage of src, at least 92 %
	$(PIP) -e '.[quality]'
	$(PYTEST) $(WORKERS) --cov --cov-report=term:skip-covered --cov-fail-under=92

mutation: .venv/test             ## 400 small faults in algebra and certify: how many do the tests notice
	$(PIP) -e '.[quality]'
	$(BIN)/python -m tools.mutation

fuzz: demo .venv/test            ## thousands of drawn requests at the explorer, none answered by a fault
	$(PIP) -e '.[quality]'
	$(BIN)/python -m tools.fuzz runs

docs: demo .venv/test            ## the generated pages, and the picture of the README
	$(BIN)/python -m tools.docs

site: .venv/test                 ## all pages as a site in build/site, each looked at (SITE_URL=https://host/folder/, of a 404 page)
	$(PIP) -e '.[docs]'
	SITE_URL="$(SITE_URL)" $(BIN)/python -m tools.site

dist: .venv/test                 ## wheels and source archives in dist/, built and checked (REPOSITORY=https://…)
	$(BIN)/python -m tools.dist dist $(if $(REPOSITORY),--repository $(REPOSITORY))

changelog: .venv/test            ## the fragments of changelog.d become a section of CHANGELOG.md (VERSION)
	$(BIN)/towncrier build --version "$(VERSION)"

image:                           ## the container, where podman, buildah or docker is (BASE=image with Python)
	@engine=$$(command -v podman || command -v buildah || command -v docker) || { echo "not built: no podman, buildah or docker"; exit 1; }; \
	$$engine build $(if $(BASE),--build-arg BASE=$(BASE)) -t bilens -f Containerfile .

bench: bench-training bench-decomposition bench-guarantees   ## three of the benchmarks (DATA)

bench-training: .venv/test       ## an epoch of images against a plain loop (DATA)
	$(BIN)/python -m bench.training $(IMAGES)

bench-decomposition: .venv/test  ## eigenpairs, HOSVD and CP against the dense ways
	$(PIP) tensorly
	$(BIN)/python -m bench.decomposition

bench-wires: .venv/test          ## dimensions of three-layer networks that can go (DATA, CORPUS)
	$(BIN)/python -m bench.wires $(IMAGES) --corpus $(CORPUS)

bench-two-layers: .venv/test     ## moments and similarity of two layers beside samples (DATA)
	$(BIN)/python -m bench.two_layers $(IMAGES)

bench-ground-truth: .venv/test   ## a transformer with known rules, read from its weights (DATA)
	$(BIN)/python -m bench.ground_truth $(DATA)

bench-polynomial-language: .venv/test  ## a language model that is a polynomial, beside its twin (CORPUS, OUT, SEEDS, CHANGE)
	$(BIN)/python -m bench.polynomial_language $(CORPUS) $(OUT) $(if $(SEEDS),--seeds $(SEEDS)) $(if $(CHANGE),--change "$(CHANGE)")

bench-guarantees: .venv/test     ## radii against attacks, attributions against Captum (DATA)
	$(PIP) captum foolbox
	$(BIN)/python -m bench.guarantees $(IMAGES)

bench-quadratic-fit: .venv/test  ## quadratic approximations against least squares (DATA)
	$(BIN)/python -m bench.quadratic_fit $(IMAGES)

bench-conversion-ordinary: .venv/test  ## ordinary networks made bilinear, MNIST and six tables (DATA)
	$(BIN)/python -m bench.conversion_ordinary $(IMAGES)

bench-language: .venv/test       ## throughput of a language model's training (CORPUS)
	$(BIN)/python -m bench.language_throughput $(if $(CORPUS),--corpus $(CORPUS))

bench-sweep: .venv/test          ## sweeps by engines over 14,909 MLPs, and with kills (OUT): half an hour
	$(BIN)/python -m bench.sweep.deepseek $(OUT)/model
	$(BIN)/python -m bench.sweep.engines all $(OUT)/model $(OUT)/engines
	$(BIN)/python -m bench.sweep.kills $(OUT)/kills
	$(BIN)/python -m bench.sweep.stores $(OUT)/stores $(OUT)/model $(MODEL)

bench-explorer: .venv/test       ## the explorer's pages in a browser, of 2,000 models
	$(PIP) -e ./explorer
	$(BIN)/python -m bench.explorer

bench-installation: .venv/test   ## the wheels in an empty environment: size, seconds, three commands
	$(BIN)/python -m bench.installation

bench-startup: .venv/test        ## the help and the imports, beside import torch
	$(BIN)/python -m bench.startup

bench-tables: .venv/test         ## the estimators for tables against others (extra `bench`)
	$(BIN)/python -m bench.tables

bench-real: .venv/test           ## audits of real model files, which pip puts into DATA: half an hour
	$(BIN)/python -m bench.real_models $(DATA)

bench-sae: .venv/test            ## a training step of a sparse autoencoder against the dense way
	$(BIN)/python -m bench.sae_steps

study-pretrained: .venv/test     ## a pretrained language model audited end to end (MODEL)
	$(BIN)/python -m bench.pretrained $(MODEL)

study-conversion: .venv/test     ## a language model made bilinear (MODEL, TEXT, MEASURE, OUT)
	$(BIN)/python -m bench.conversion --model $(MODEL) --text $(TEXT) --measure $(MEASURE) --out $(OUT)

study-adapters: .venv/test       ## backdoored adapters of language models (TEXTS, MODEL, OUT): hours
	for split in fixed judged adaptive; do \
		$(BIN)/python -m bench.adapters.pool $$split --out $(OUT) --data $(TEXTS) --weights $(MODEL); done
	$(BIN)/python -m bench.adapters --out $(OUT) --data $(TEXTS) --weights $(MODEL)

clean:                           ## remove what is made here, but not runs
	rm -rf .venv build dist .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/pip:
	$(PYTHON) -m venv .venv
	touch $@

# A stamp file for each set of packages, made anew when a pyproject.toml changes. The studies and the explorer
# stand in the same line as bilens: no index has them.
.venv/demo: .venv/pip pyproject.toml studies/pyproject.toml
	$(PIP) -e '.[demo]' -e ./studies
	touch $@

.venv/test: .venv/pip pyproject.toml studies/pyproject.toml explorer/pyproject.toml
	$(PIP) --no-compile -e '.[test]' -e ./studies -e ./explorer
	touch $@
