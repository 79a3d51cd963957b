"""Guards against rules that say of a layer what is not so: each sentence has a network of which it
is true by construction, and whose numbers are counted here, by hand or with numpy."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import bilens as bl
import tiny
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearMLP
from builders import randn
from contract.rule_cases import Between, Case, Cases, Factors, Shown, Stack, about, check
from contract.table import cell

CASES = Cases()
IN, HIDDEN, OUT = 6, 9, 6


class Gated(nn.Module):
    """A gated layer with an activation."""

    def __init__(self, activation: nn.Module) -> None:
        super().__init__()
        self.gate, self.up = nn.Linear(IN, HIDDEN, bias=False), nn.Linear(IN, HIDDEN, bias=False)
        self.down, self.activation = nn.Linear(HIDDEN, OUT, bias=False), activation
        for at, part in enumerate((self.gate, self.up, self.down)):
            part.weight = nn.Parameter(randn(*part.weight.shape, seed=at))

    def forward(self, x: Tensor) -> Tensor:
        found: Tensor = self.down(self.activation(self.gate(x)) * self.up(x))
        return found


def usual(seed: int = 0, size: float = 1.0) -> Factors:
    left, right = randn(HIDDEN, IN, seed=seed + 1), randn(HIDDEN, IN, seed=seed + 2)
    return size * randn(OUT, HIDDEN, seed=seed), left, right


def spectrum(*eigenvalues: float) -> Factors:
    """One output, with these eigenvalues along the axes."""
    root = torch.tensor(eigenvalues).double().abs().sqrt().diag()
    return torch.tensor([eigenvalues]).double().sign(), root, root


def audited(model: nn.Module, *data: Any) -> Any:
    return bl.audit(model, *data, null_samples=tiny.ROTATIONS)


def plain(weights: Tensor, bias: Tensor, activation: nn.Module | None = None) -> nn.Module:
    """An MLP whose outputs are its hidden units, turned."""
    hidden = len(weights)
    mlp = nn.Sequential(
        nn.Linear(weights.shape[1], hidden), activation or nn.ReLU(), nn.Linear(hidden, 3)
    ).double()
    with torch.no_grad():
        mlp[0].weight.copy_(weights)
        mlp[0].bias.copy_(bias)
        mlp[2].weight.copy_(randn(3, hidden, seed=8))
        mlp[2].bias.zero_()
    return mlp


# ---- hidden units


def tiny_model(parts: Factors) -> Any:
    """A classifier of one layer with these factors."""
    columns = (part.tolist() for part in (parts[1], parts[2], parts[0].T))
    return tiny.planted(list(zip(*columns, strict=True)), IN)


@CASES.say("layers", "dead_units.warn", "duplicate_units.pass", "unused_inputs.pass")
def a_unit_without_outputs() -> Shown:
    units = {"value": 1, "of": HIDDEN, "layers": "layers.0", "said": "1 of 9 hidden units does"}
    parts = usual()
    return audited(Stack((changed(parts[0], (slice(None), 3)), *parts[1:]))), {
        "dead_units.warn": units,
        "duplicate_units.pass": overlaps(parts, skip=3),
        "unused_inputs.pass": {},
    }


@CASES.say("classes", "dead_units.warn", "duplicate_units.pass", "unused_inputs.pass")
def a_unit_that_adds_the_same_to_all_logits() -> Shown:
    parts = usual()
    down = changed(parts[0][:3], (slice(None), 3), 2.0)
    units = {"value": 1, "of": HIDDEN, "layers": "layers.0", "said": "the same for every class"}
    return audited(tiny_model((down, *parts[1:]))), {
        "dead_units.warn": units,
        "duplicate_units.pass": overlaps(parts, skip=3),
        "unused_inputs.pass": {},
    }


def changed(part: Tensor, place: Any, value: Any = 0.0) -> Tensor:
    part = part.clone()
    part[place] = value
    return part


def overlaps(parts: Factors, skip: int) -> dict[str, Any]:
    """The largest cosine of two units, each input by what all units put on it."""
    left, right = (np.delete(part.numpy(), skip, axis=0) for part in parts[1:])
    size = np.sqrt((left**2 + right**2).sum(axis=0))
    left, right = (rows / size for rows in (left, right))
    left, right = (rows / np.linalg.norm(rows, axis=1)[:, None] for rows in (left, right))
    straight = np.minimum(abs(left @ left.T), abs(right @ right.T))
    crossed = np.minimum(abs(left @ right.T), abs(right @ left.T))
    pairs = np.triu_indices(len(left), 1)
    draws = np.random.default_rng(0).normal(size=(200_000, IN))
    cosines = abs(draws[:, 0]) / np.linalg.norm(draws, axis=1)
    null = float(np.quantile(cosines, 1 - len(pairs[0]) ** -0.5))  # both branches at a time
    return {"overlap": float(np.maximum(straight, crossed)[pairs].max()), "null": about(null)}


@CASES.say("layers", "dead_units.warn")
def two_zero_gates_behind_silu() -> Shown:
    model = Gated(nn.SiLU())
    with torch.no_grad():
        model.gate.weight[[3, 5]] = 0
    units = {"value": 2, "of": HIDDEN, "layers": "gate", "said": "their activation is zero"}
    return audited(model), {"dead_units.warn": units}


@CASES.say("layers", "dead_units.pass")
def a_zero_gate_behind_a_sigmoid() -> Shown:
    """σ(0) = ½: the unit is half its value."""
    model = Gated(nn.Sigmoid())
    with torch.no_grad():
        model.gate.weight[3] = 0
    return audited(model), {"dead_units.pass": {"of": HIDDEN}}


@CASES.say("classes", "dead_units.pass", "duplicate_units.warn")
def two_units_of_a_classifier_that_are_one() -> Shown:
    """Twice one branch, and half the other, which are exchanged."""
    down, left, right = usual()
    left, right = changed(left, 3, 2 * right[2]), changed(right, 3, left[2] / 2)
    return audited(tiny_model((down[:3], left, right))), {
        "dead_units.pass": {"of": HIDDEN},
        "duplicate_units.warn": double(HIDDEN, 2),
    }


def double(units: int, branches: int) -> dict[str, Any]:
    draws = np.random.default_rng(0).normal(size=(200_000, IN))
    cosines = abs(draws[:, 0]) / np.linalg.norm(draws, axis=1)
    null = about(float(np.quantile(cosines, 1 - (units * (units - 1) / 2) ** (-1 / branches))))
    said = "1 pair of hidden units computes the same"
    numbers = {"value": 1, "overlap": 1.0, "null": null}
    return {**numbers, "layers": "layers.0" if branches == 2 else "0", "said": said}


@CASES.say("layers", "duplicate_units.warn")
def a_unit_and_twice_the_same() -> Shown:
    up, bias = randn(HIDDEN, IN, seed=1), randn(HIDDEN, seed=2)
    model = plain(changed(up, 3, 2 * up[2]), changed(bias, 3, 2 * bias[2]))
    return audited(model), {"duplicate_units.warn": double(HIDDEN, 1)}


@CASES.say("layers", "duplicate_units.pass")
def relu_of_t_and_of_minus_t() -> Shown:
    """Their weights point to opposite sides, and no input opens both."""
    up = torch.cat([torch.eye(IN), -torch.eye(IN)]).double()
    cosines = {"overlap": 0.0, "null": double(2 * IN, 1)["null"]}
    return audited(plain(up, torch.zeros(2 * IN))), {"duplicate_units.pass": cosines}


# ---- sizes of layers


def of_sizes(*sizes: float) -> tuple[nn.Module, list[float], list[float]]:
    """Layers, their norms, and how far these are from the median, by the median deviation."""
    parts = [usual(3 * at, size) for at, size in enumerate(sizes)]
    norms = [float(np.sqrt(sum((part.numpy() ** 2).sum() for part in one))) for one in parts]
    logs = np.log(norms)
    away = logs - np.median(logs)
    return Stack(*parts), norms, [*(0.6745 * away / max(np.median(abs(away)), 0.01))]


@CASES.say("layers", "huge_norm.warn")
def one_layer_a_million_times_the_others() -> Shown:
    model, norms, z = of_sizes(1, 1.1, 0.9, 1, 1, 1e6)
    numbers = {"value": z[5], "norm": norms[5], "layers": "layers.5"}
    return audited(model), {"huge_norm.warn": numbers}


@CASES.say("layers", "huge_norm.pass")
def layers_of_one_size() -> Shown:
    model, norms, z = of_sizes(1, 1.1, 0.9, 1, 1, 1.05)
    most = int(np.argmax(z))
    numbers = {"value": z[most], "norm": norms[most], "layers": f"layers.{most}"}
    return audited(model), {"huge_norm.pass": numbers}


@CASES.say("layers", "huge_norm.pass")
def one_layer_a_millionth_of_the_others() -> Shown:
    """It is of another size, and not larger."""
    model, norms, z = of_sizes(1, 1.1, 0.9, 1, 1, 1e-6)
    most = int(np.argmax(z))
    numbers = {"value": z[most], "norm": norms[most], "layers": f"layers.{most}"}
    said = "No layer has far larger weights than the rest"
    return audited(model), {"huge_norm.pass": {**numbers, "said": said}}


# ---- inputs, outputs and directions of a map


def without_two_inputs() -> Factors:
    down, left, right = usual()
    for part in (left, right):
        part[:, [1, 4]] = 0
    return down, left, right


UNUSED = {"value": 2, "of": IN, "layers": "layers.0", "said": "up to 2 of 6 in one layer"}


@CASES.say("layers", "unused_inputs.info")
def two_inputs_without_weights() -> Shown:
    return audited(Stack(usual(4), without_two_inputs())), {
        "unused_inputs.info": {**UNUSED, "layers": "layers.1"}
    }


@CASES.say("classes", "unused_inputs.info")
def two_inputs_of_a_classifier_without_weights() -> Shown:
    down, left, right = without_two_inputs()
    return audited(tiny_model((down[:3], left, right))), {"unused_inputs.info": UNUSED}


@CASES.say("layers", "unused_inputs.pass")
def an_input_that_no_hidden_unit_reads() -> Shown:
    """It goes past the products, through the linear path."""
    layer = BilinearMLP(IN, HIDDEN, skip=True).double()
    with torch.no_grad():
        layer.left.weight[:, 2] = layer.right.weight[:, 2] = 0
    numbers = {"said": "Every input of every layer that was read has a weight that is not zero"}
    return audited(nn.Sequential(layer)), {"unused_inputs.pass": numbers}


def tensor_of(parts: Factors, centred: bool = False) -> Any:
    """The symmetric tensor (out, in, in) of a layer."""
    down, left, right = (part.numpy() for part in parts)
    down = down - down.mean(axis=0) * centred
    full = np.einsum("oh,hi,hj->oij", down, left, right)
    return (full + full.transpose(0, 2, 1)) / 2


def turned(width: int, seed: int) -> Any:
    return np.linalg.qr(np.random.default_rng(seed).normal(size=(width, width)))[0]


def strongest(parts: Factors, centred: bool = False) -> dict[str, Any]:
    """The largest share of ‖B‖² on one input, and that in coordinates that are turned."""
    b = tensor_of(parts, centred)
    shares = (b**2).sum(axis=(0, 2)) / (b**2).sum()
    null = largest_when_turned(np.einsum("oij,okj->ik", b, b))
    numbers = {"value": float(shares.max()), "input": int(shares.argmax()), "null": null}
    return {**numbers, "layers": "layers.0"}


def largest_when_turned(gram: Any) -> Between:
    turns = (turned(len(gram), at) for at in range(200))
    draws = [float(np.diag(q.T @ gram @ q).max() / gram.trace()) for q in turns]
    return Between(float(np.median(draws)), max(draws) * 1.05)


def strong_input(size: float) -> Factors:
    down, left, right = usual()
    for part in (left, right):
        part[:, 2] *= size
    return down, left, right


@CASES.say("layers", "dominant_inputs.warn")
def an_input_in_a_small_unit() -> Shown:
    parts = strong_input(50)
    return audited(Stack(parts)), {"dominant_inputs.warn": strongest(parts)}


@CASES.say("classes", "dominant_inputs.warn")
def an_input_of_a_classifier_in_a_small_unit() -> Shown:
    down, left, right = strong_input(50)
    parts = down[:3], left, right
    model = LoadedModel(
        tiny_model(parts), "", "", input_shape=(2, 3), provenance={"data_name": "mnist"}
    )
    return audited(model), {"dominant_inputs.warn": strongest(parts, centred=True)}


@CASES.say("layers", "dominant_inputs.info")
def one_of_sixteen_a_little_stronger() -> Shown:
    parts = spectrum(*[1.0] * 15, 1.2)
    return audited(Stack(parts)), {"dominant_inputs.info": strongest(parts)}


@CASES.say("layers", "dominant_inputs.pass")
def all_inputs_alike() -> Shown:
    """The squared length of x is the same in all coordinates."""
    numbers = {"value": 1 / 16, "null": 1 / 16, "input": Between(0, 15), "layers": "layers.0"}
    return audited(Stack(spectrum(*[1.0] * 16))), {"dominant_inputs.pass": numbers}


def in_rows(parts: Factors, deviation: Tensor, middle: float = 3) -> tuple[Any, dict[str, Any]]:
    """The audit on rows, and the largest share of the variance of outputs in their deviations."""
    x = middle + deviation * randn(200, len(deviation), seed=5)
    model = nn.Sequential(*Stack(parts).layers).eval()
    y = model(x).detach()
    b, mean, own = (
        tensor_of(parts) / y.std(dim=0).numpy()[:, None, None],
        x.mean(dim=0),
        x.std(dim=0),
    )
    slope, b = 2 * (b @ mean.numpy()) * own.numpy(), b * np.outer(own, own)
    gram = 2 * np.einsum("oij,okj->ik", b, b) + slope.T @ slope
    shares = np.diag(gram / gram.trace())
    numbers = {"value": float(shares.max()), "input": str(shares.argmax()), "layers": "0"}
    answers = y.argmax(dim=1) if y.shape[1] > 1 else y[:, 0]
    return audited(model, (x, answers)), {**numbers, "null": largest_when_turned(gram)}


@CASES.say("layers", "dominant_inputs.warn_rows")
def an_input_that_varies_much() -> Shown:
    report, numbers = in_rows(usual(), torch.tensor([1.0, 1, 50, 1, 1, 1]))
    return report, {"dominant_inputs.warn_rows": numbers}


@CASES.say("layers", "dominant_inputs.info_rows")
def one_of_twenty_varies_a_little_more() -> Shown:
    report, numbers = in_rows(spectrum(*[1.0] * 20), torch.tensor([1.0] * 19 + [1.1]), 0)
    return report, {"dominant_inputs.info_rows": numbers}


@CASES.say("layers", "dominant_inputs.pass_rows")
def inputs_that_vary_alike() -> Shown:
    report, numbers = in_rows(usual(), torch.ones(IN))
    return report, {"dominant_inputs.pass_rows": numbers}


def outputs_of(parts: Factors) -> dict[str, Any]:
    """The effective rank along the outputs, and that of branches that are turned."""

    def rank(one: Any) -> float:
        values = np.linalg.svd(one.reshape(len(one), -1), compute_uv=False)
        return float(values.sum() ** 2 / (values**2).sum())

    found, most = rank(tensor_of(parts)), min(len(parts[0]), len(parts[1]), IN * (IN + 1) // 2)
    null = [
        rank(tensor_of((*parts[:2], torch.from_numpy(parts[2].numpy() @ turned(IN, at)))))
        for at in range(100)
    ]
    numbers = {"rank": found, "of": most, "value": found / most, "layers": "layers.0"}
    return {**numbers, "null": Between(min(null) * 0.99, max(null) * 1.01)}


@CASES.say("layers", "low_rank.info")
def a_layer_that_writes_along_one_direction() -> Shown:
    down = randn(40, 1, seed=5) @ randn(1, 50, seed=6)
    parts = down, randn(50, IN, seed=3), randn(50, IN, seed=4)
    numbers = {**outputs_of(parts), "rank": 1.0, "of": IN * (IN + 1) // 2}
    return audited(Stack(parts)), {"low_rank.info": numbers}


@CASES.say("layers", "low_rank.pass")
def a_layer_that_writes_everywhere() -> Shown:
    return audited(Stack(usual())), {"low_rank.pass": outputs_of(usual())}


@CASES.say("layers", "low_rank.pass")
def two_layers_of_which_the_wider_uses_less() -> Shown:
    """One writes along the one direction that it has, the other along three of six."""
    eye = torch.eye(IN).double()
    one = eye[:, :1], eye[:1], eye[1:2]
    three = torch.cat([eye[:, :3], eye[:, :3]], dim=1), eye, eye
    said = "layers.1 has the lowest effective rank beside its possible directions"
    numbers = {"rank": 3.0, "of": 6, "value": 0.5, "layers": "layers.1"}
    found = {**numbers, "null": Between(1, 3.001), "said": said}
    return audited(Stack(one, three)), {"low_rank.pass": found}


CLOSE = spectrum(*torch.linspace(1, 1.001, IN).tolist())
APART = spectrum(32, 16, 8, 4, 2, 1)


@CASES.say("layers", "unstable_directions.warn")
def eigenvalues_nearer_than_bfloat16_tells() -> Shown:
    numbers = {"value": 1, "of": 1, "kind": "bfloat16", "layers": "layers.0"}
    return audited(Stack(CLOSE)), {"unstable_directions.warn": numbers}


@CASES.say("layers", "unstable_directions.pass")
def eigenvalues_twice_the_next() -> Shown:
    numbers = {"of": 1, "kind": "bfloat16"}
    return audited(Stack(APART)), {"unstable_directions.pass": numbers}


def of_two_classes(parts: Factors) -> Any:
    return audited(tiny_model((torch.cat([parts[0], -parts[0]]), *parts[1:])))


@CASES.say("classes", "unstable_directions.warn")
def eigenvalues_of_a_class_near_each_other() -> Shown:
    numbers = {"value": 1, "of": 1, "kind": "bfloat16", "layers": "layers.0"}
    return of_two_classes(CLOSE), {"unstable_directions.warn": numbers}


@CASES.say("classes", "unstable_directions.pass")
def eigenvalues_of_a_class_far_apart() -> Shown:
    return of_two_classes(APART), {"unstable_directions.pass": {"of": 1, "kind": "bfloat16"}}


@cell("audit", "same function", "other function")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sentence_on_a_layer_is_true_of_its_model(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
