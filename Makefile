# Two commands do it all on a fresh machine: `make demo` and `make test`.
PYTHON ?= python3
BIN := .venv/bin
DATA ?=
MODEL ?=

.PHONY: help demo test check bench bench-training bench-decomposition bench-guarantees bench-tracing bench-quadratic-fit bench-language bench-sae bench-startup bench-tables study-masks study-power study-pretrained docs clean

help:
	@echo "make demo    install, train on real digits, read the weights, write runs/demo/report.html"
	@echo "make test    install the test tools, then lint, types and all tests"
	@echo "make check   lint and types only"
	@echo "make bench   all benchmarks: training and guarantees (DATA=folder with the IDX files),"
	@echo "             decomposition"
	@echo "make bench-quadratic-fit   the closest quadratic map against least squares (DATA=...)"
	@echo "make bench-language   throughput of a language model's training (CORPUS=file or folder)"
	@echo "make bench-tracing   tracing all latents of a layer against the dense way"
	@echo "make bench-tables   the estimators for tables against those of scikit-learn"
	@echo "make bench-sae   a training step of a sparse autoencoder against the dense way"
	@echo "make bench-startup   the help and the imports, beside import torch"
	@echo "make study-pretrained   a pretrained language model audited end to end (MODEL=file.gguf)"
	@echo "make study-masks   universal masks on trained models (DATA=folder with the IDX files)"
	@echo "make study-power   overfitting and triggers: the findings on hundreds of models (DATA=folder)"
	@echo "make docs    regenerate docs/cli.md, docs/api.md, the benchmark page and the README picture"

demo: .venv/demo
	$(BIN)/bilens demo --out runs/demo

test: check
	$(BIN)/python -m pytest -n auto --maxprocesses 4 --dist loadfile

check: .venv/test
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

bench: bench-training bench-decomposition bench-guarantees

bench-training: .venv/test
	$(BIN)/python -m bench.training $(if $(DATA),--data-dir $(DATA))

bench-decomposition: .venv/test
	$(BIN)/pip install --quiet --disable-pip-version-check tensorly
	$(BIN)/python -m bench.decomposition

bench-tracing: .venv/test
	$(BIN)/python -m bench.tracing

bench-guarantees: .venv/test
	$(BIN)/pip install --quiet --disable-pip-version-check captum foolbox
	$(BIN)/python -m bench.guarantees $(if $(DATA),--data-dir $(DATA))

bench-quadratic-fit: .venv/test
	$(BIN)/python -m bench.quadratic_fit $(if $(DATA),--data-dir $(DATA))

bench-language: .venv/test
	$(BIN)/python -m bench.language_throughput $(if $(CORPUS),--corpus $(CORPUS))

bench-tables: .venv/test
	$(BIN)/python -m bench.tables

bench-sae: .venv/test
	$(BIN)/python -m bench.sae_steps

bench-startup: .venv/test
	$(BIN)/python -m bench.startup

study-pretrained: .venv/test
	$(BIN)/python -m bench.pretrained $(MODEL)

study-masks: .venv/test
	$(BIN)/python -m bench.masks $(if $(DATA),--data-dir $(DATA))

study-power: .venv/test
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[study]'
	$(BIN)/python -m bench.power $(if $(DATA),--data-dir $(DATA))

docs: demo .venv/test
	$(BIN)/python -m tools.docs

clean:
	rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis

.venv/pip:
	$(PYTHON) -m venv .venv
	touch $@

# A stamp file for each set of packages, made anew when pyproject.toml changes.
.venv/demo: .venv/pip pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[demo]'
	touch $@

.venv/test: .venv/pip pyproject.toml
	$(BIN)/pip install --quiet --disable-pip-version-check -e '.[test]'
	touch $@
