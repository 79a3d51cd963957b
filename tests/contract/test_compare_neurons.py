"""Guards against neurons between the layers of a network that are paired by their places.

Damage that it notices: neurons of a baseline left in its own order, on one side or both; an order
that is taken where nothing fits; columns far from zero, whose neurons rest on small inputs.
"""

import copy
import itertools
from typing import Any

import pytest
import torch
from hypothesis import given, strategies as st
from torch import nn

import bilens as bl
from contract.compared_models import classifier, generator_of
from contract.drawn import fewer
from contract.table import cell

SEEDS = st.integers(0, 2**20)
KINDS = ("relu", "gelu", "bilinear", "far")


def network(kind: str, seed: int) -> Any:
    if kind == "bilinear":
        return classifier(seed, (4, 6, 3), layers=3)
    activation = nn.GELU if kind == "gelu" else nn.ReLU
    module = nn.Sequential(
        *(nn.Linear(4, 7), activation(), nn.Linear(7, 6), activation(), nn.Linear(6, 3))
    ).double()
    generator = generator_of(seed)
    with torch.no_grad():
        for part in module.parameters():
            part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
        if kind == "far":  # columns around 900
            module[0].weight *= 1e-2
            module[0].bias -= module[0].weight.sum(dim=1) * 900
    return module


def with_neurons_permuted(module: Any, kind: str, seed: int) -> Any:
    """The same function, with what is between its layers in another order."""
    moved, generator = copy.deepcopy(module), generator_of(seed)
    if kind == "bilinear":
        sides = [
            ([one.left, one.right], [two.left, two.right] if two else [moved.head])
            for one, two in zip(moved.layers, [*moved.layers[1:], None], strict=True)
        ]
    else:
        linear = [part for part in moved if isinstance(part, nn.Linear)]
        sides = [([one], [two]) for one, two in itertools.pairwise(linear)]
    with torch.no_grad():
        for before, behind in sides:
            order = torch.randperm(len(before[0].weight), generator=generator)
            for part in before:
                part.weight.copy_(part.weight[order].clone())
                part.bias.copy_(part.bias[order].clone())
            for part in behind:
                part.weight.copy_(part.weight[:, order].clone())
    return moved


def difference(model: Any, baseline: Any) -> dict[str, Any]:
    found: dict[str, Any] = bl.audit(model, baseline=baseline, null_samples=3).to_dict()
    return found["difference"]


@pytest.mark.parametrize("kind", KINDS)
@fewer(2)
@given(seed=SEEDS)
@cell("compare", "permuted units", "same function")
def test_neurons_in_another_order_are_no_change(kind: str, seed: int) -> None:
    """Both layers around them were told as changed, by more than their own size."""
    module = network(kind, seed)
    moved = with_neurons_permuted(module, kind, seed + 1)
    x = torch.randn(5, 4, generator=generator_of(0)).double() + (900 if kind == "far" else 0)
    torch.testing.assert_close(moved(x), module(x))
    found = difference(moved, module)
    for layer in found["layers"]:
        if layer["refused"] is not None and "is below" in layer["refused"]:
            continue  # a layer that is not read is not compared
        assert layer["refused"] is None
        assert layer["identical"] or (layer["change"] or 0) < 1e-6, layer["name"]
    assert [one["names"] for one in found["aligned"] if one["kind"] == "neurons_reordered"]


@pytest.mark.parametrize("kind", ["relu", "bilinear"])
@cell("compare", "other function")
def test_a_change_behind_neurons_in_another_order_keeps_its_size(kind: str) -> None:
    module = network(kind, 3)
    changed = copy.deepcopy(module)
    with torch.no_grad():
        [*changed.parameters()][-2 if kind == "relu" else -1][1, 2] += 0.1
    told = [
        [(layer["name"], layer["change"]) for layer in difference(one, module)["layers"]]
        for one in (changed, with_neurons_permuted(changed, kind, 5))
    ]
    for (name, straight), (_, behind) in zip(*told, strict=True):
        assert behind == pytest.approx(straight, rel=1e-6, abs=1e-9), name
    assert told[0][-1][1] > 1e-3


@pytest.mark.parametrize("kind", ["relu", "bilinear"])
@cell("compare", "other function")
def test_neurons_that_no_order_makes_alike_are_not_paired(kind: str) -> None:
    """Two trainings have nothing in common there, and a number for it says nothing."""
    found = difference(network(kind, 1), network(kind, 2))
    for layer in found["layers"]:
        assert layer["change"] is None
        assert "neurons" in layer["refused"]
