"""Guards against rules that say of two models what is not so: each sentence has a pair of which it
is true by construction, and whose numbers are counted here."""

import copy
import math
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

import bilens as bl
import tiny
from bilens.io.loaded_model import LoadedModel
from builders import randn
from contract.rule_cases import Between, Case, Cases, Factors, Shown, Stack, Wired, check
from contract.table import cell

CASES = Cases()
KINDS = ("classes", "layers", "columns")
IN, HIDDEN = 4, 10
NAMES = ("a", "b", "c", "d")


def made(kind: str, parts: Factors) -> Any:
    """A model of one layer: a classifier, layers of a network, or a model of four columns."""
    if kind == "layers":
        return Stack(parts)
    columns = (part.tolist() for part in (parts[1], parts[2], parts[0].T))
    module = tiny.planted([*zip(*columns, strict=True)], IN)
    if kind == "classes":
        return module
    known = {"input_mean": (0.0,) * IN, "input_scale": (1.0,) * IN, "input_names": NAMES}
    return LoadedModel(module, "", "", output_names=("one", "other"), **known)


def audited(model: Any, baseline: Any, *data: Any, **more: Any) -> Any:
    return bl.audit(model, *data, baseline=baseline, null_samples=more.pop("samples", None), **more)


def turned(angle: float) -> Factors:
    """± (cos x₀x₁ + sin x₂x₃): two forms of one size that are orthogonal, and both of mean 0."""
    down = torch.tensor([[math.cos(angle), math.sin(angle)]]).double()
    eye = torch.eye(IN).double()
    return torch.cat([down, -down]), eye[[0, 2]], eye[[1, 3]]


def answer(parts: Factors, x: Tensor) -> Any:
    down, left, right = parts
    return ((x @ left.T) * (x @ right.T) @ down.T).numpy()


def angles(kind: str, angle: float) -> tuple[Any, Any]:
    return made(kind, turned(angle)), made(kind, turned(0.0))


LAYER = {"layers": "layers.0"}


def without_data(kind: str, angle: float, ending: str) -> Shown:
    """Of a cosine, and of a change of √((1 − cos)² + sin²), which are those of all inputs."""
    moved = 2 * math.sin(angle / 2)
    return audited(*angles(kind, angle)), {
        f"similarity.{ending}_assumed": {**LAYER, "value": math.cos(angle)},
        f"change.{ending}_assumed": {**LAYER, "value": moved},
        "changed_layers.info": {"value": 1, "of": 1, **LAYER},
    }


def on_rows(kind: str, angle: float, ending: str) -> Shown:
    """Also on rows of data, where both may be other numbers: the worst one is told."""
    model, baseline = angles(kind, angle)
    x = randn(40, IN, seed=3)
    if kind == "layers":
        model, baseline = (nn.Sequential(one.layers[0]) for one in (model, baseline))
    f, g = (answer(turned(at), x) for at in (0.0, angle))
    old, new = f - f.mean(axis=0), g - f.mean(axis=0)
    cosine = float((old * new).sum() / np.linalg.norm(old) / np.linalg.norm(new))
    moved = float(np.linalg.norm(g - f) / np.linalg.norm(old))
    layer = {"layers": "0"} if kind == "layers" else LAYER
    said = "of a quadratic part, or of the outputs of a layer on the data, is"
    return audited(model, baseline, (x, torch.arange(40) % 2)), {
        f"similarity.{ending}": {**layer, "value": min(cosine, math.cos(angle))},
        f"change.{ending}": {**layer, "value": max(moved, 2 * math.sin(angle / 2)), "said": said},
    }


# ---- what a change of one unit, or of all weights, leaves


def moved(kind: str, change: Callable[[Factors], Factors]) -> tuple[Any, Any, Factors, Factors]:
    before = randn(2, HIDDEN), randn(HIDDEN, IN, seed=1), randn(HIDDEN, IN, seed=2)
    after = change(before)
    return made(kind, after), made(kind, before), after, before


def one_unit(parts: Factors) -> Factors:
    """Another form is added along an output: of rank one there, and of two along the inputs."""
    down, left, right = (part.clone() for part in parts)
    left[0], right[0] = left[0] + 3, right[0] - 3
    return down, left, right


def noise(parts: Factors) -> Factors:
    down, left, right = parts
    return (
        down + 1e-3 * randn(*down.shape, seed=9),
        left + 1e-3 * randn(*left.shape, seed=10),
        right + 1e-3 * randn(*right.shape, seed=11),
    )


def tensor_of(kind: str, parts: Factors) -> Any:
    down, left, right = (part.numpy() for part in parts)
    down = down - down.mean(axis=0) * (kind != "layers")
    full = np.einsum("oh,hi,hj->oij", down, left, right)
    return (full + full.transpose(0, 2, 1)) / 2


def rank_of(change: Any, axis: int) -> tuple[float, int]:
    """The effective rank along outputs or inputs, and how many directions hold 90 %."""
    matrix = change.reshape(len(change), -1) if axis == 0 else change.transpose(1, 0, 2)
    values = np.linalg.svd(matrix.reshape(len(matrix), -1), compute_uv=False)
    held = np.cumsum(values**2) / (values**2).sum()
    return float(values.sum() ** 2 / (values**2).sum()), int((held < 0.9).sum()) + 1


def concentrated(kind: str, change: Callable[[Factors], Factors], ending: str) -> Shown:
    model, baseline, after, before = moved(kind, change)
    delta = tensor_of(kind, after) - tensor_of(kind, before)
    sizes = [float((a - b).square().mean().sqrt()) for a, b in zip(after, before, strict=True)]
    told = []
    for axis, mode in enumerate(("outputs", "inputs")):
        draws = []
        for seed in range(40):
            noisy = [
                part + size * randn(*part.shape, seed=100 + 3 * seed + at)
                for at, (part, size) in enumerate(zip(before, sizes, strict=True))
            ]
            drawn: Factors = (noisy[0], noisy[1], noisy[2])
            draws.append(rank_of(tensor_of(kind, drawn) - tensor_of(kind, before), axis)[0])
        rank, directions = rank_of(delta, axis)
        told.append((rank / np.mean(draws), mode, rank, directions, float(np.mean(draws))))
    value, mode, rank, directions, null = min(told)
    near = Between(null * 0.8, null * 1.25)
    numbers = {"mode": mode, "rank": rank, "directions": directions, "null": near, **LAYER}
    share = Between(value * 0.8, value * 1.25)
    said = "did not change in far fewer directions" if ending == "pass" else "few directions"
    numbers |= {"value": share, "said": said}
    return audited(model, baseline), {f"concentrated_change.{ending}": numbers}


def same(kind: str) -> Shown:
    model, *_ = moved(kind, noise)
    count = len({*model.state_dict()}) if isinstance(model, nn.Module) else 4
    other = copy.deepcopy(model)
    return audited(model, other), {
        "changed_tensors.pass": {"of": count},
        "low_rank_change.pass_none": {},
        "changed_layers.pass": {"of": 1},
        "similarity.pass": {"value": 1.0, **LAYER},
        "change.pass": {"value": 0.0, **LAYER},
    }


@CASES.say("classes", "similarity.pass", "change.info")
def twice_the_baseline() -> Shown:
    """Similar in all but its size, which a cosine does not see; each answer twice, with a sign."""
    down, left, right = turned(0.5)
    models = (made("classes", (size * down, left, right)) for size in (2, 1))
    x = randn(40, IN, seed=3)
    rows = torch.cat([x, x * torch.tensor([-1, 1, -1, 1])])
    said = "nearly the same as in the baseline but for a factor"
    return audited(*models, (rows, torch.arange(80) % 2)), {
        "similarity.pass": {**LAYER, "value": 1.0, "said": said},
        "change.info": {**LAYER, "value": 1.0},
    }


@CASES.say("layers", "changed_layers.pass", "changed_tensors.info")
def the_same_numbers_in_another_type() -> Shown:
    """Each number is the same, and none of the bits."""
    baseline = Stack(turned(1.0)).float()
    numbers = {"of": 1, "said": "are those of the baseline, number for number"}
    tensors = {"value": 3, "of": 3, "change": 0.0, "kinds": "gate, up, down"}
    report = audited(copy.deepcopy(baseline).double(), baseline)
    return report, {"changed_layers.pass": numbers, "changed_tensors.info": tensors}


# ---- what is around the layers, and what has no counterpart


OPEN = {"value": 1.0, "layers": "one"}


@CASES.say("layers", "changed_layers.warn_answers", "similarity.info_open", "change.info_open")
def the_same_layers_and_another_sign() -> Shown:
    report = audited(Wired(torch.neg), Wired(torch.clone), samples=3)
    return report, {
        "changed_layers.warn_answers": {"value": 0, "of": 2, "said": "0 of the 2 layers"},
        "similarity.info_open": OPEN,
        "change.info_open": {"value": 0.0, "layers": "two"},
    }


@CASES.say("layers", "changed_layers.warn_order")
def the_same_layers_in_another_order() -> Shown:
    one, two = (Stack((randn(4, 6, seed=at), randn(6, 4), randn(6, 4))) for at in range(2))
    both = {"one": one.layers[0], "two": two.layers[0]}
    orders = [nn.Sequential(OrderedDict((name, both[name]) for name in at)) for at in ORDERS]
    return audited(*orders, samples=3), {"changed_layers.warn_order": {"value": 0, "of": 2}}


ORDERS = ("one", "two"), ("two", "one")


@CASES.say("layers", "changed_layers.warn_parts")
def the_same_answers_by_other_code() -> Shown:
    report = audited(Wired(lambda x: x.clamp(max=1e36)), Wired(lambda x: x.clamp(max=2e36)))
    told = {"value": 0, "of": 2, "said": "of other code than in the baseline, or set otherwise"}
    return report, {"changed_layers.warn_parts": told}


@CASES.say("layers", "changed_layers.warn_unknown")
def two_files_of_layers(folder: Path) -> Shown:
    """Of a file of tensors nobody knows what is between its layers."""
    for name in ("new", "old"):
        tensors = {
            f"blocks.{at}.{part}": randn(*shape, seed=at)
            for at in range(2)
            for part, shape in (("fc1.weight", (9, 6)), ("fc2.weight", (6, 9)))
        }
        save_file(tensors, folder / f"{name}.safetensors")
    roles = {"up": "blocks.*.fc1.weight", "down": "blocks.*.fc2.weight"}
    model, baseline = (
        bl.load(folder / f"{name}.safetensors", roles=roles, activation="relu", transposed=False)
        for name in ("new", "old")
    )
    told = {"value": 0, "of": 2, "said": "What is around the layers was not compared"}
    return audited(model, baseline, samples=3), {"changed_layers.warn_unknown": told}


for one in KINDS:

    @CASES.say(one, "similarity.pass_assumed", "change.pass_assumed", "changed_layers.info")  # type: ignore[arg-type]
    def a_little_turned(kind: str = one) -> Shown:
        return without_data(kind, 0.05, "pass")

    @CASES.say(one, "similarity.info_assumed", "change.info_assumed", "changed_layers.info")  # type: ignore[arg-type]
    def turned_by_one(kind: str = one) -> Shown:
        return without_data(kind, 1.0, "info")

    @CASES.say(one, "similarity.pass", "change.pass")  # type: ignore[arg-type]
    def a_little_turned_on_rows(kind: str = one) -> Shown:
        return on_rows(kind, 0.05, "pass")

    @CASES.say(one, "similarity.info", "change.info")  # type: ignore[arg-type]
    def turned_by_one_on_rows(kind: str = one) -> Shown:
        return on_rows(kind, 1.0, "info")

    @CASES.say(one, "concentrated_change.warn")  # type: ignore[arg-type]
    def a_change_of_one_unit(kind: str = one) -> Shown:
        return concentrated(kind, one_unit, "warn")

    @CASES.say(one, "concentrated_change.pass")  # type: ignore[arg-type]
    def a_change_of_all_weights(kind: str = one) -> Shown:
        return concentrated(kind, noise, "pass")

    @CASES.say(  # type: ignore[arg-type]
        one,
        *("changed_tensors.pass", "low_rank_change.pass_none", "changed_layers.pass"),
        *("similarity.pass", "change.pass"),
    )
    def the_same_model(kind: str = one) -> Shown:
        return same(kind)


@cell("compare", "same function", "other function")
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_sentence_on_a_change_is_true_of_its_models(case: Case, tmp_path: Path) -> None:
    check(case, tmp_path)
