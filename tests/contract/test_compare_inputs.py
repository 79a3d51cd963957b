"""Guards against a comparison on inputs that no model sees: numbers of another size than real ones.

Each was seen to fail: a similarity of .9999 in raw units where four of five answers differ, biases
changed under a large embedding called rounding, one branch times 1.1 called another function.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.io.loaded_model import LoadedModel
from contract.compared_models import (
    classifier,
    compared,
    copied,
    generator_of,
    images,
    only_layer,
    table,
    with_units_permuted,
)
from contract.table import cell

CONDITIONS = ["similarity<0.99", "change>0.1"]
FEW = {"null_samples": 39}


def turned_but_for_one_input(scale: Tensor, layers: int) -> tuple[Any, Any]:
    """Two classifiers that answer alike to the first input, and otherwise to the others."""
    both = classifier(3, (4, 8, 3), layers), classifier(3, (4, 8, 3), layers)
    with torch.no_grad():
        both[0].embed.weight[:, 1:] *= -1
        for one in both:
            one.embed.weight /= scale
    return both


@cell("compare", "other units", "other function")
@pytest.mark.parametrize("layers", [1, 2])
def test_data_say_in_which_units_two_models_are_alike(layers: int) -> None:
    scale = torch.tensor([0.002, 1.0, 1.0, 1.0]).double()
    model, baseline = turned_but_for_one_input(scale, layers)
    x = torch.randn(600, 4, generator=generator_of(0), dtype=torch.float64) * scale
    answers = [one(x).argmax(dim=1) for one in (model, baseline)]
    assert float((answers[0] != answers[1]).double().mean()) > 0.3, "what is compared differs"
    data = (x, answers[1])
    found = compared(model, baseline, data, fail_on=CONDITIONS, **FEW)
    assert {one["rule"] for one in found["conditions"] if one["failed"]} == {"similarity", "change"}
    layer = found["difference"]["layers"][0]
    assert layer["row_similarity"] < 0.9
    again = compared(baseline, baseline, data, fail_on=CONDITIONS, **FEW)
    assert not any(one["failed"] for one in again["conditions"])


@cell("compare", "other units")
def test_without_data_nothing_is_called_nearly_the_same() -> None:
    model, baseline = turned_but_for_one_input(torch.tensor([0.002, 1.0, 1.0, 1.0]).double(), 1)
    report = bl.audit(model, baseline=baseline, **FEW)
    (rule,) = (one for one in report.to_dict()["verdict"] if one["rule"] == "similarity")
    assert rule["outcome"] == "info"
    assert "nearly the same as in the baseline" not in report.to_markdown()


@cell("compare", "other function")
@pytest.mark.parametrize("size", [1.0, 1e4, 1e8, 1e12])
def test_changed_biases_are_no_rounding_of_a_large_embedding(size: float) -> None:
    model, baseline = (classifier(0) for _ in range(2))
    with torch.no_grad():
        for one in (model, baseline):
            one.embed.weight *= size
        left, right = model.layers[0].left, model.layers[0].right
        for part in ("weight", "bias"):  # the branches exchanged: the same function
            one, other = (getattr(branch, part) for branch in (left, right))
            one.data, other.data = other.data.clone(), one.data.clone()
    assert only_layer(compared(model, baseline, **FEW))["same_function"]
    with torch.no_grad():
        left.bias += 0.3
    x = torch.randn(50, 6, generator=generator_of(0), dtype=torch.float64) / size
    assert float((model(x) - baseline(x)).detach().abs().max()) > 0.1
    assert not only_layer(compared(model, baseline, **FEW))["same_function"]


@cell("compare", "scaled branches")
@pytest.mark.parametrize("factor", [1.0 + 1e-6, 1.1, 3.0])
def test_a_difference_that_cancels_is_rounding(factor: float) -> None:
    model = images(0)
    scaled = with_units_permuted(copied(model), range(5), torch.full((5,), factor).double())
    assert only_layer(compared(scaled, model, **FEW))["same_function"]


def with_a_step(model: LoadedModel, size: float) -> LoadedModel:
    """The model with a hidden unit that is the same number for every input."""
    found = copied(model)
    left, right = found.module.layers[0].left, found.module.layers[0].right  # type: ignore[union-attr]
    with torch.no_grad():
        for branch, value in ((left, 1.0), (right, size)):
            branch.weight[0], branch.bias[0] = 0.0, value
    return found


@cell("compare", "own object", "other function")
@pytest.mark.parametrize("outputs", [1, 3])
@pytest.mark.parametrize("other", ["another training", "a step"])
def test_how_alike_two_models_answer_is_computed_from_their_answers(
    other: str, outputs: int
) -> None:
    """By hand: an output that is a constant larger is another answer."""
    names = ("ape", "bee", "cat")[:outputs]
    baseline = with_a_step(table(1, names), 1.0)
    model = with_a_step(table(1 if other == "a step" else 2, names), 200.0)
    x = torch.randn(60, 4, generator=generator_of(0), dtype=torch.float64)
    old, new = (one.module(x).detach().numpy() for one in (baseline, model))  # type: ignore[misc, union-attr]
    if outputs > 1:
        old, new = (one - one.mean(axis=1, keepdims=True) for one in (old, new))
    mean = old.mean(axis=0)
    sizes = [np.linalg.norm(one - mean) for one in (old, new)]
    labels = x[:, 0] if outputs == 1 else torch.arange(60) % 3
    layer = only_layer(compared(model, baseline, (x, labels)))
    alike = float(((old - mean) * (new - mean)).sum() / sizes[0] / sizes[1])
    assert layer["row_similarity"] == pytest.approx(alike, abs=1e-9)
    assert layer["row_change"] == pytest.approx(np.linalg.norm(new - old) / sizes[0], rel=1e-9)
    assert alike < 0.99


@cell("compare", "other function")
@pytest.mark.parametrize("threshold", [0.5, 0.95, 0.99])
def test_both_models_are_held_to_the_threshold_that_was_asked_for(threshold: float) -> None:
    """A layer is compared where its map, and the baseline's, explains as much as was asked for."""
    torch.manual_seed(0)
    both = [bl.nn.BilinearClassifier(4, 12, 3, gate="relu", bias=True).double() for _ in range(2)]
    with torch.no_grad():
        for one, shift in zip(both, (0.0, 0.5), strict=True):
            for name, part in one.named_parameters():
                if name.endswith("left.bias"):
                    part.add_(shift)
    scores = [
        next(iter(LoadedModel(one, "", "").layers.values())).fit.r_squared.quadratic.overall
        for one in both
    ]
    for pair in (both, both[::-1]):
        refused = only_layer(compared(*pair, null_samples=3, threshold=threshold))["refused"]
        assert bool(refused) is (min(scores) < threshold), scores
