"""How many dimensions of the wires of trained networks can go, and at which error.

* Bilinear classifiers of three layers, trained on MNIST and Fashion-MNIST by the recipe of
  `bilens train image`, smaller and shorter.
* The MLPs of a small polynomial transformer trained on TinyStories (`wires_of_language.py`).

Each is truncated by `bl.decompose_wires` under N(0, I) and under mean and covariance of its inputs,
and, as control, by principal components of each wire and by random directions. Run it with
`make bench-wires DATA=folder-with-the-IDX-files CORPUS=text`; it writes docs/benchmarks/wires.json
and the page.
"""

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from copy import deepcopy
from functools import partial
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

import bilens as bl
from bench.wire_truncation import (
    RANDOM_DRAWS,
    SEED,
    TOLERANCES,
    Projection,
    relative_error,
    try_controls,
    try_wires,
)
from bench.wires_of_language import measure_language
from bilens.algebra.gaussian import mean_and_covariance
from bilens.api.provenance import describe_run
from bilens.records.base import to_json
from bilens.train.recipes import ImageRecipe
from bilens.train.tasks.image import train_classifier

PAGE = Path(__file__).parent.parent / "docs" / "benchmarks"
IMAGES = (("mnist", True), ("mnist", False), ("fashion-mnist", True))
CASES = [
    ImageRecipe(n_layers=3, d_hidden=64, residual=residual, epochs=20, precision="float32")
    for _, residual in IMAGES
]


def network_of(model: bl.nn.BilinearClassifier) -> bl.PolynomialNetwork:
    """Read a classifier with its head apart, which is told against the mean of all outputs."""
    exact, parts = deepcopy(model).double(), []
    embed = exact.embed.weight.detach()
    for at, layer in enumerate(exact.layers):
        assert isinstance(layer, bl.nn.BilinearLayer), "of a classifier"
        f = layer.quadratic_map().detach()
        if model.residual:
            f = f.plus_affine(torch.eye(f.sizes.d_in, dtype=torch.float64))
        parts.append(bl.QuadraticLayer(f if at else f.compose_input(embed), residual=False))
    head = exact.head.weight.detach()
    return bl.PolynomialNetwork(tuple(parts), head=head - head.mean(dim=0))


def projected(network: bl.PolynomialNetwork, chosen: Sequence[Projection]) -> bl.PolynomialNetwork:
    """Project the wires of a network whose layers have no residual path of their own."""
    parts = []
    for part, (matrix, shift) in zip(network.parts, chosen, strict=True):
        assert isinstance(part, bl.QuadraticLayer), "of `network_of`"
        parts.append(bl.QuadraticLayer(part.map.compose_output(matrix, shift), residual=False))
    return bl.PolynomialNetwork(tuple(parts), head=network.head)


def streams(network: bl.PolynomialNetwork, x: Tensor) -> list[Tensor]:
    """Run a network and return what each wire carries."""
    found = []
    for part in network.parts:
        assert isinstance(part, bl.QuadraticLayer), "layers alone"
        x = x + part.map(x) if part.residual else part.map(x)
        found.append(x)
    return found


def measure_images(name: str, recipe: ImageRecipe, folder: Path | None) -> dict[str, Any]:
    """Train a classifier, truncate it, and count right answers on test images."""
    began = time.process_time()
    data = bl.load_images(name, folder, allow_download=folder is None)
    model = train_classifier(data, recipe)
    trained = time.process_time() - began
    network, x = network_of(model), data.test_images.double()
    labels, coarse = data.test_labels, data.test_images

    def right(one: bl.PolynomialNetwork) -> float:
        answers = one.to(torch.float32)(coarse).argmax(dim=1)
        return float((answers == labels).double().mean())

    whole = right(network)
    with torch.no_grad():
        logits = model(coarse[:100]).double()
    expected = logits - logits.mean(dim=1, keepdim=True)
    assert relative_error(expected, network(x[:100])) < 1e-5, "it is the same function"

    def good(value: float, tolerance: float) -> bool:
        return value >= (1 - tolerance) * whole

    methods: dict[str, Any] = {}
    for measure, moments in (("N(0, I)", None), ("images", mean_and_covariance(data.train_images))):
        methods[f"wires, {measure}"] = try_wires(
            network, moments, lambda _, less: right(less.network), good, x
        )
    carried = streams(network, data.train_images[:20_000].double())
    methods |= try_controls(
        [mean_and_covariance(one) for one in carried],
        lambda chosen: right(projected(network, chosen)),
        good,
    )
    found = {"name": name, "residual": recipe.residual, "whole": whole, "unit": "accuracy"}
    sys.stderr.write(f"{found} {time.process_time() - began:.0f} s\n")
    return {**found, "methods": methods, "training_seconds": trained}


def percent(value: float | None) -> str:
    """Write a share for people."""
    return "—" if value is None else f"{value:.0%}"


def case_name(case: dict[str, Any]) -> str:
    """Name a network for people."""
    if case["unit"] == "loss":
        return "TinyStories, MLPs"
    kind = "" if case["residual"] else " without"
    return f"{case['name']},{kind or ' with'} residual paths"


def page(result: dict[str, Any]) -> str:
    """Return the page that is generated from the result."""
    removed, errors = [], []
    for case in result["cases"].values():
        whole = (
            f"{case['whole']:.1%}" if case["unit"] == "accuracy" else f"{case['whole']:.3f} nats"
        )
        for method, found in case["methods"].items():
            best = [found["best"][str(one)] for one in TOLERANCES]
            cells = [percent(None if one is None else one["removed"]) for one in best]
            removed.append(f"| {case_name(case)} | {whole} | {method} | {' | '.join(cells)} |")
            for tolerance, one in zip(TOLERANCES, best, strict=True):
                if one is None or "told" not in one:
                    continue
                bound = one["bound_over_error"]
                errors.append(
                    f"| {case_name(case)} | {method} | {tolerance:.1%} | "
                    f"{', '.join(map(str, one['widths']))} | {one['told']:.3f} | "
                    f"{one['on_normal']:.3f} | {one['on_inputs']:.3f} | {one['rounding']:.0e} | "
                    f"{'—' if bound is None else f'{bound:.0e}'} | {percent(one['inside'])} |"
                )
    seconds = sum(case["seconds"] for case in result["cases"].values())
    width = CASES[0].d_hidden + 1
    free = (width - 9) / (3 * width)
    inputs = "held-out inputs | rounding | bound / error | inside"
    run, language = result["run"], result["cases"]["tinystories"]
    versions = ", ".join(f"{name} {value}" for name, value in run["versions"].items())
    lines, told = "\n".join(removed), "\n".join(errors)
    return f"""# Wires of trained networks: which dimensions can go

Generated by `make bench-wires` from `wires.json`; do not edit.

Classifiers of three bilinear layers and {CASES[0].d_hidden} channels, {CASES[0].epochs} epochs of
the recipe of `bilens train image`; and the MLPs of a polynomial transformer of {language["blocks"]}
blocks and {language["width"]} channels ({language["tokens"]:,} tokens of TinyStories) as one chain,
the head behind. Logits are told against their mean. A wire is what a layer gives; its constant
counts as one dimension more. The share of the dimensions of all wires that can go with a held-out
accuracy, or loss, within a tolerance of that of the whole (a dash: nothing that was tried):

| network | whole | directions by | within 1 % | within .1 % |
|---|---|---|---|---|
{lines}

* *wires*: `bl.decompose_wires` under N(0, I), or under mean and covariance of the training inputs;
  each wire may lose a share of its spectrum. *Principal components* of what each wire carries on
  training inputs lose a share of its variance; *random* directions, around the mean, are as many in
  each wire, a mean of {RANDOM_DRAWS} draws. Each is tried at a row of shares; shown is the one that
  removes most, chosen on the same held-out inputs.
* Ten outputs told against their mean read nine directions of the last wire. The decomposition
  leaves the others out at no cost, of an image classifier {free:.0%} of all dimensions; principal
  components and random directions do not know what is read.
* In the transformer the wires of the chain are projected where they are in the whole model, with
  its attention between them, which the decomposition does not know of; principal components are of
  the stream there. A wire of the chain is the whole stream at that place, and attention, embedding
  and head need channels of it that the MLPs could do without.
* Published elsewhere: 70 to 90 % for networks of three layers. Sizes, data, training, tolerance and
  what is counted as a dimension may differ from these.

What is told of the truncated network, beside what is measured: roots of squared errors over squared
sizes, of all logits.

| network | directions by | within | widths | told, free copies | one normal input | {inputs} |
|---|---|---|---|---|---|---|---|---|---|
{told}

*Told* is exact where every copy of the input is drawn for itself (eight copies for three layers).
With one input in all copies it is another number: drawn from N(mean, covariance), or held-out
inputs. *Rounding* is a proven bound on what rounding may hide of what is told, for any order of the
sums; where it is the larger of the two, a smaller error is told than is proven. `error_bound` held
for every input; shown are the median of how far it is above the error, and the share of inputs
inside of the span of the covariance (outside it is infinite).

* {run["date"]}; {run["hardware"]}; {versions}; {seconds:.0f} seconds of the
  processor in all.
"""


def main() -> None:
    """Run the benchmark and write its result and page."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument(
        "--data-dir", type=Path, help="with a folder of IDX files for each data set"
    )
    parser.add_argument("--corpus", type=Path, required=True, help="a file of stories")
    jobs: dict[str, Callable[[Path], dict[str, Any]]] = {
        **{
            f"{name}-{'with' if recipe.residual else 'without'}": partial(
                measure_images, name, recipe
            )
            for (name, _), recipe in zip(IMAGES, CASES, strict=True)
        },
        "tinystories": measure_language,
    }
    parser.add_argument("--only", nargs="*", choices=jobs, default=[*jobs], help="the others stay")
    given = parser.parse_args()
    kept = PAGE / "wires.json"
    for name in given.only:
        began = time.process_time()
        case = jobs[name](given.corpus if name == "tinystories" else given.data_dir)
        case["seconds"] = time.process_time() - began
        cases = json.loads(kept.read_text())["cases"] if kept.exists() else {}
        result = {
            "cases": {key: case if key == name else cases.get(key) for key in jobs},
            "run": to_json(describe_run("make bench-wires", SEED)),
        }
        kept.write_text(json.dumps(result, indent=1) + "\n")
    if all(result["cases"].values()):
        (PAGE / "wires.md").write_text(page(result))
        print(page(result))


if __name__ == "__main__":
    main()
