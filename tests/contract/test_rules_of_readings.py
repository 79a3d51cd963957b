"""Guards against rules that say of how a network was read what is not so: each sentence has a
network of which it is true by construction, and whose numbers are counted here."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bilens as bl
import tiny
from bilens.io.any_model import open_any
from bilens.io.loaded_model import ReadOptions
from builders import randn
from contract.rule_cases import Between, Case, Cases, Factors, Shown, Stack, about, check
from contract.table import cell

CASES = Cases()
IN, HIDDEN, OUT = 6, 9, 6


def usual(seed: int = 0) -> Factors:
    left, right = randn(HIDDEN, IN, seed=seed + 1), randn(HIDDEN, IN, seed=seed + 2)
    return randn(OUT, HIDDEN, seed=seed), left, right


def audited(model: Any, *data: Any) -> Any:
    return bl.audit(model, *data, null_samples=tiny.ROTATIONS)


# ---- can it be read


@CASES.say("layers", "non_finite.pass", "r2.pass_exact", "coverage.pass_whole", "layout.pass")
def three_bilinear_layers() -> Shown:
    return audited(Stack(usual(), usual(5), usual(9))), {
        "non_finite.pass": {"of": 3},
        "r2.pass_exact": {"of": 3, "said": "Each of the 3 layers is exactly quadratic"},
        "coverage.pass_whole": {"exact": 1.0, "approximate": 0.0},
        "layout.pass": {"source": "the module itself, as it runs"},
    }


def stored(folder: Path, **changes: Tensor) -> Path:
    """A file with the tensors of two ordinary MLPs, and others."""
    made = {
        f"blocks.{at}.{name}": randn(*shape, seed=at)
        for at in range(2)
        for name, shape in (("fc1.weight", (HIDDEN, IN)), ("fc2.weight", (IN, HIDDEN)))
    }
    save_file({**made, **changes}, folder / "model.safetensors")
    return folder / "model.safetensors"


ROLES = {"up": "blocks.*.fc1.weight", "down": "blocks.*.fc2.weight"}


@CASES.say("layers", "layout.warn_said", "coverage.warn", "non_finite.fail")
def products_beyond_float64(folder: Path) -> Shown:
    """Weights of 10³⁰⁸ are finite, and their products are not; the other layer is half of all."""
    path = stored(folder, **{"blocks.0.fc2.weight": torch.ones(IN, HIDDEN).double() * 1e308})
    return audited(bl.load(path, roles=ROLES, activation="identity", transposed=False)), {
        "layout.warn_said": {},
        "non_finite.fail": {"value": 1, "of": 2, "layers": "layers.0", "said": "1 of 2 layers"},
        "coverage.warn": {"value": 0.5, "exact": 0.5, "approximate": 0.0},
    }


@CASES.say("layers", "layout.warn_guessed", "coverage.pass")
def a_tensor_that_is_in_no_layer(folder: Path) -> Shown:
    """Of 228 numbers 12 are in a table of places."""
    path = stored(folder, places=randn(2, IN))
    found = audited(bl.load(path, activation="identity", transposed=False))
    share = {"value": 216 / 228, "exact": 216 / 228, "approximate": 0.0, "said": "94.7% of the"}
    return found, {"layout.warn_guessed": {}, "coverage.pass": share}


@CASES.say("layers", "coverage.warn_none", "non_finite.pass_tensors")
def tensors_of_no_layer(folder: Path) -> Shown:
    """Of nothing that was read, nothing can be read wrongly: `layout` has nothing to say."""
    save_file(nn.Conv2d(3, 4, 3).state_dict(), folder / "model.safetensors")
    found = audited(open_any(folder / "model.safetensors", ReadOptions()))
    assert {one.rule for one in found.record.verdict} == {"coverage", "non_finite"}
    return found, {
        "coverage.warn_none": {"value": 0.0, "said": "None of the parameters"},
        "non_finite.pass_tensors": {"value": 0, "tensors": 2},
    }


@CASES.say("layers", "non_finite.fail_tensors")
def nan_in_a_tensor_of_no_layer(folder: Path) -> Shown:
    weights = nn.Conv2d(3, 4, 3).state_dict()
    weights["bias"][1] = torch.nan
    save_file(weights, folder / "model.safetensors")
    found = audited(open_any(folder / "model.safetensors", ReadOptions()))
    return found, {"non_finite.fail_tensors": {"value": 1, "tensors": 2, "layers": "bias"}}


def beside_two_layers(folder: Path, other: Tensor) -> Any:
    path = stored(folder, **{"attention.query": other})
    return audited(bl.load(path, roles=ROLES, activation="relu", transposed=False))


@CASES.say("layers", "non_finite.pass_all")
def a_tensor_beside_layers(folder: Path) -> Shown:
    found = beside_two_layers(folder, randn(3, 3))
    return found, {"non_finite.pass_all": {"value": 0, "of": 2, "tensors": 1}}


@CASES.say("layers", "non_finite.fail_all")
def infinity_beside_layers(folder: Path) -> Shown:
    found = beside_two_layers(folder, randn(3, 3) / 0.0)
    told = {"value": 1, "of": 2, "tensors": 1, "layers": "attention.query"}
    return found, {"non_finite.fail_all": told}


class NotRun(Stack):
    """Layers that nobody can run, and that are found by a trace all the same."""

    def forward(self, x: Tensor) -> Tensor:
        y = super().forward(x)
        if isinstance(y, Tensor):
            raise RuntimeError("it needs a service that is not here")
        return y


@CASES.say("layers", "layout.warn_known")
def layers_that_cannot_be_run() -> Shown:
    return audited(NotRun(usual())), {"layout.warn_known": {}}


# ---- what a quadratic map explains of a layer: a unit relu(t + b) of a normal t


def unit(bias: float, *more: float) -> nn.Module:
    """Networks of units max(t + b, 0), one behind the other, of the first of three inputs."""
    parts = list[nn.Module]()
    for at, shift in enumerate((bias, *more)):
        parts += [nn.Linear(1 if at else 3, 1), nn.ReLU()]
        with torch.no_grad():
            parts[-2].weight.zero_()[0, 0] = 1  # type: ignore[operator]
            parts[-2].bias.fill_(shift)  # type: ignore[operator,union-attr]
    last = nn.Linear(1, 1)
    with torch.no_grad():
        last.weight.fill_(1)
        last.bias.zero_()
    return nn.Sequential(*parts, last).double()


def explained(bias: float) -> float:
    """The share of the variance of max(t + bias, 0) in its first two Hermite polynomials."""
    t, step = np.linspace(-12, 12, 200_001, retstep=True)
    density = np.exp(-(t**2) / 2) / np.sqrt(2 * np.pi) * step
    y = np.maximum(t + bias, 0)
    mean = (y * density).sum()
    parts = [(y * h * density).sum() ** 2 for h in (t, (t**2 - 1) / np.sqrt(2))]
    return float(sum(parts) / (((y - mean) ** 2 * density).sum()))


@CASES.say("layers", "r2.info", "coverage.warn_none")
def a_network_without_data() -> Shown:
    report = audited(unit(0.0))
    fit = {"approximate": 1, "value": about(explained(0.0)), "said": "the one layer that is"}
    unread = {"value": 0.0, "said": "None of the parameters"}
    return report, {"r2.info": fit, "coverage.warn_none": unread}


@CASES.say("layers", "r2.warn")
def a_unit_that_hardly_opens() -> Shown:
    """Without the largest of its outputs, still less is explained."""
    fit = {"approximate": 1, "refused": 1, "layers": "0", "said": "without its largest outputs"}
    return audited(unit(-2.0)), {"r2.warn": {**fit, "value": Between(0.2, explained(-2.0) + 0.02)}}


def on_data(model: nn.Module, x: Tensor) -> Any:
    return audited(model, (x, model(x)[:, 0].detach() + 0.25))


@CASES.say("layers", "r2.pass_seen", "coverage.pass_whole")
def a_network_on_its_data() -> Shown:
    fit = {"approximate": 1, "value": about(explained(0.0))}
    whole = {"exact": 0.0, "approximate": 1.0, "said": "0.0% exactly, 100.0%"}
    return on_data(unit(0.0), randn(2000, 3)), {"r2.pass_seen": fit, "coverage.pass_whole": whole}


@CASES.say("layers", "r2.warn_seen")
def a_unit_that_hardly_opens_on_data() -> Shown:
    fit = {"approximate": 1, "refused": 1, "layers": "0", "said": "In 1 of 1"}
    return on_data(unit(-2.0), randn(2000, 3)), {"r2.warn_seen": {**fit, "value": Between(-9, 0.6)}}


@CASES.say("layers", "r2.info_seen")
def one_row_that_carries_all() -> Shown:
    """x₁ + max(x₀, 0), where x₁ is thousands in five rows of 2,000: those say that R² is 1."""
    x = randn(2000, 3)
    x[::400, 1] *= 1e4
    weights = torch.tensor([[1.0, 0, 0], [0, 1, 0], [0, -1, 0]]).double()
    model = nn.Sequential(nn.Linear(3, 3), nn.ReLU(), nn.Linear(3, 1)).double()
    with torch.no_grad():
        model[0].weight.copy_(weights)
        model[0].bias.zero_()
        model[2].weight.copy_(torch.tensor([[1.0, 1.0, -1.0]]))
    fit = {"approximate": 1, "value": Between(0.9, 1.0)}
    return on_data(model, x), {"r2.info_seen": fit}


def steps() -> Tensor:
    """Different rows whose first number is −3, 0 or 3: no more than two reach a second layer."""
    x = randn(900, 3)
    x[:, 0] = 3 * (torch.arange(900) % 3 - 1.0)
    return x


@CASES.say("layers", "r2.info_some")
def a_layer_that_sees_too_little() -> Shown:
    """Through three points goes a quadratic; of the second layer the input is assumed."""
    fit = {"approximate": 2, "value": about(explained(0.0))}
    return on_data(unit(0.0, 0.0), steps()), {"r2.info_some": fit}


@CASES.say("layers", "r2.warn_some")
def one_that_sees_too_little_and_hardly_opens() -> Shown:
    fit = {"approximate": 2, "refused": 1, "said": "without its largest outputs"}
    fit |= {"layers": "2", "value": Between(0.2, explained(-2.0) + 0.02)}
    return on_data(unit(0.0, -2.0), steps()), {"r2.warn_some": fit}


@CASES.say("layers", "unstable_directions.pass")
def one_layer_that_is_exact_and_one_that_is_fitted_to_data() -> Shown:
    """What rounding does to a fit to data is not followed: two layers are read, and one is told."""
    model = nn.Sequential(*Stack(cube()).layers, *unit(0.0))
    report = on_data(model, randn(2000, 3))
    assert len(report.record.layers.readings) == 2
    rounded = {"of": 1, "kind": "bfloat16", "said": "in the one layer for which it could be"}
    return report, {"unstable_directions.pass": rounded}


def cube() -> Factors:
    """Three outputs x₀² + 1/2 x₁², x₁ and x₂ squared."""
    return torch.tensor([[1.0, 0.5, 0], [0, 1, 0], [0, 0, 1]]).double(), torch.eye(3), torch.eye(3)


# ---- how good its answers are, where they are numbers


@CASES.say("layers", "r_squared.info")
def a_network_that_gives_a_number() -> Shown:
    return of_a_network(0.0, "info")


@CASES.say("layers", "r_squared.warn")
def a_network_that_is_off_by_five() -> Shown:
    return of_a_network(5.0, "warn")


def of_a_network(shift: float, ending: str) -> Shown:
    model = nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1)).double()
    with torch.no_grad():
        for at, part in enumerate(model.parameters()):
            part.copy_(randn(*part.shape, seed=at))
    x = randn(100, 3, seed=9)
    said = model(x).detach()[:, 0]
    y = said + shift + 0.3 * randn(100, seed=8)
    told = 1 - float(np.mean((said - y).numpy() ** 2) / np.var(y.numpy()))
    report = bl.audit(model, (x, y), null_samples=3)
    return report, {f"r_squared.{ending}": {"value": told, "total": 100}}


@cell("audit", "same function", "other function")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sentence_on_a_reading_is_true_of_its_model(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
