"""Guards against a null distribution that depends on which branch of a layer is called left.

A product has no first factor. Behind an embedding one of the two branches alone was turned: the
edges of a class moved by half, and with them p-values and verdict, when both were exchanged.
"""

from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor

import bilens as bl
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import output_mode_null
from bilens.io.loaded_model import LoadedModel
from builders import rotation, seeded
from contract.compared_models import classifier, copied, images, with_units_permuted
from contract.table import cell


def with_branches_exchanged(model: LoadedModel) -> LoadedModel:
    """The same function, with the names of its two branches exchanged in every layer."""
    found = copied(model)
    module: Any = found.module
    for layer in module.layers:
        layer.left, layer.right = layer.right, layer.left
    return found


def unlike(model: LoadedModel) -> LoadedModel:
    """The model, with a left branch that reads the direction which its embedding stretches most."""
    found = copied(model)
    module: Any = found.module
    with torch.no_grad():
        first, _, others = torch.linalg.svd(module.embed.weight, full_matrices=False)
        module.embed.weight.copy_(first * torch.tensor([9.0, 1, 1, 1, 1]).double() @ others)
        module.layers[0].left.weight.add_(4 * first[:, 0])
    return found


def told(model: LoadedModel) -> dict[str, Any]:
    """What an audit says of the weights, without how they are named."""
    document = bl.audit(model, null_samples=39, command="here").to_dict()
    return {name: document[name] for name in ("classes", "verdict")}


@cell("audit", "same function")
def test_an_audit_of_classes_does_not_ask_which_branch_is_left() -> None:
    model = unlike(images(1))
    one, other = (told(each) for each in (model, with_branches_exchanged(model)))
    for mine, theirs in zip(one["classes"]["readings"], other["classes"]["readings"], strict=True):
        for name in ("upper_edge", "lower_edge", "p_upper", "p_lower"):
            assert mine[name] == pytest.approx(theirs[name], rel=1e-9)
        ranks = (each["effective_rank_null"] for each in (mine, theirs))
        assert next(ranks) == pytest.approx(next(ranks), rel=1e-9)


@cell("audit", "same function")
def test_an_audit_of_layers_does_not_ask_which_branch_is_left() -> None:
    deep = unlike(LoadedModel(classifier(2, layers=2), "", ""))
    one, other = (
        bl.audit(each, null_samples=39, command="here").to_dict()["layers"]["readings"]
        for each in (deep, with_branches_exchanged(deep))
    )
    for mine, theirs in zip(one, other, strict=True):
        for name in ("effective_rank_null", "top_share_null", "leading_rank_null"):
            pair = (each["outputs"][name] for each in (mine, theirs))
            assert next(pair) == pytest.approx(next(pair), rel=1e-9)


@cell("audit", "same function", "scaled branches")
@pytest.mark.parametrize("exchanged", [False, True])
@pytest.mark.parametrize(("gate", "doubles"), [(None, True), ("silu", False)])
def test_a_unit_is_doubled_by_one_whose_branches_are_exchanged(
    gate: Any, doubles: bool, exchanged: bool
) -> None:
    """They compute the same product; behind another activation than none they do not."""
    torch.manual_seed(0)
    module: Any = bl.nn.BilinearClassifier(5, 6, 3, n_layers=2, bias=True, gate=gate).double()
    with torch.no_grad():
        layer = module.layers[0]
        sides = [layer.left, layer.right][:: -1 if exchanged else 1]
        for branch, other, factor in zip((layer.left, layer.right), sides, (2.0, 0.5), strict=True):
            scale = 1.0 if gate and not exchanged else factor
            branch.weight[4] = scale * other.weight[1]
            branch.bias[4] = scale * other.bias[1]
    (first, second) = bl.audit(module, null_samples=39, command="here").to_dict()["layers"][
        "readings"
    ]
    same = doubles or not exchanged
    assert (first["units"]["duplicates"], second["units"]["duplicates"]) == (int(same), 0)


def parts_of(model: LoadedModel) -> tuple[QuadraticMap, Tensor]:
    module: Any = model.module
    return module.quadratic_map("embedding").detach(), module.embed.weight.detach()


def in_turned_space(model: LoadedModel) -> LoadedModel:
    """The same function: the space between embedding and layer turned."""
    found, turn = copied(model), rotation(5, seed=4)
    module: Any = found.module
    with torch.no_grad():
        for branch in (module.layers[0].left, module.layers[0].right):
            branch.weight.copy_(branch.weight @ turn.T)
        module.embed.weight.copy_(turn @ module.embed.weight)
    return found


SCALE = torch.tensor([0.1, 3, -1, 7, -0.4]).double()
REWRITTEN = {
    "branches exchanged": with_branches_exchanged,
    "units in another order": lambda model: with_units_permuted(model, [4, 2, 0, 1, 3], SCALE**0),
    "one branch times a number": lambda model: with_units_permuted(model, [0, 1, 2, 3, 4], SCALE),
    "another space between": in_turned_space,
}


@cache
def nulls(way: str, embedded: bool, draws: int) -> tuple[Tensor, ...]:
    """The nulls of a model that is written in a way, or as it is."""
    model = unlike(images(3))
    f, embedding = parts_of(REWRITTEN[way](model) if way else model)
    behind = embedding if embedded else None
    null = bl.rotation_null(f, None, 0, draws, behind)
    whole = f.compose_input(embedding) if embedded else f
    modes = output_mode_null(whole, seeded(0), draws, embedding=behind)
    return (null.both_ends, null.effective_rank, *vars(modes).values())


@cell("decompose", "same function")
@pytest.mark.parametrize("way", REWRITTEN)
@pytest.mark.parametrize("embedded", [True, False])
def test_the_null_of_a_function_does_not_depend_on_how_it_is_written(
    way: str, embedded: bool
) -> None:
    """The same draws where branches change their names; else means of 800, with errors of 3 %."""
    same = way in ("branches exchanged", "one branch times a number")
    draws = 40 if same else 800
    found = [nulls(one, embedded, draws) for one in ("", way)]
    for mine, theirs in zip(*found, strict=True):
        mean = mine.mean(dim=0)
        torch.testing.assert_close(theirs.mean(dim=0), mean, rtol=1e-9 if same else 0.1, atol=0)
