"""Guards against answers that depend on how a function is written, or on how many threads run.

A small model with random weights is written otherwise by hand; the module itself says what is
right. Damage that it notices: a branch without its scale, units of a head in another order.
"""

import warnings
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor, nn

import bilens as bl
from bilens.api.classifier import attack_model, certify_model, explain_predictions
from bilens.nn import BilinearClassifier
from contract.drawn import fewer
from contract.table import cell
from contract.test_held_out_rows import frame_of, trained
from contract.test_interface import World, other_units, seeds, world


def changed(one: World, **parts: Tensor) -> World:
    """The same world with other tensors in its module, by the end of their names."""
    module = BilinearClassifier(
        one.module.embed.in_features, one.module.embed.out_features, len(one.classes), bias=True
    ).double()
    state = one.module.state_dict()
    for name, part in parts.items():
        state[name.replace("__", ".")] = part
    module.load_state_dict(state)
    return replace(one, module=module)


def tensors(one: World) -> tuple[Tensor, ...]:
    layer = one.module.layers[0]
    sides = (layer.left.weight, layer.left.bias, layer.right.weight, layer.right.bias)
    return tuple(
        part.detach() for part in (one.module.embed.weight, *sides, one.module.head.weight)
    )


def written(one: World, *parts: Tensor) -> World:
    names = ("embed__weight", "layers__0__left__weight", "layers__0__left__bias")
    names += ("layers__0__right__weight", "layers__0__right__bias", "head__weight")
    return changed(one, **dict(zip(names, parts, strict=True)))


def permuted_units(one: World) -> World:
    embed, left, a, right, b, head = tensors(one)
    order = torch.tensor([3, 1, 4, 0, 2])
    return written(one, embed, left[order], a[order], right[order], b[order], head[:, order])


def scaled_branches(one: World) -> World:
    embed, left, a, right, b, head = tensors(one)
    scale = torch.tensor([2.0, -0.5, 4.0, 0.25, -8.0], dtype=torch.float64)
    scaled = scale[:, None] * left, scale * a, right / scale[:, None], b / scale
    return written(one, embed, *scaled, head)


def common_function(one: World) -> World:
    embed, *sides, head = tensors(one)
    added = torch.linspace(-1, 2, head.shape[1], dtype=torch.float64)
    return written(one, embed, *sides, head + added)


def same_function(one: World) -> World:
    """Another basis of the embedding, and the branches exchanged."""
    embed, left, a, right, b, head = tensors(one)
    turn = torch.eye(len(embed), dtype=torch.float64) + torch.tril(torch.ones_like(left), -1) / 4
    back = torch.linalg.inv(turn)
    return written(one, turn @ embed, right @ back, b, left @ back, a, head)


WAYS: dict[str, Callable[[World], World]] = {
    "permuted units": permuted_units,
    "scaled branches": scaled_branches,
    "common function": common_function,
    "same function": same_function,
}


def check_rewritten(one: World, other: World) -> None:
    """The two are the same function, but for what is added to all logits."""
    logits = [each.logits - each.logits.mean(dim=1, keepdim=True) for each in (one, other)]
    torch.testing.assert_close(*logits)


@pytest.mark.parametrize("way", WAYS)
@fewer(3)
@given(seed=seeds)
@cell("attack", *WAYS)
def test_an_attack_is_of_the_function(way: str, seed: int) -> None:
    one = world(seed)
    other = WAYS[way](one)
    check_rewritten(one, other)
    found = [
        attack_model(
            each.model(), (one.frame, np.array(one.right)), target=1, epsilons=[0.0, 0.5, 2.0]
        ).record.objectives
        for each in (one, other)
    ]
    for first, second in zip(*found, strict=True):
        assert second.lower == pytest.approx(first.lower, rel=1e-6, abs=1e-9)
        for kind in ("optimal", "mean_difference"):
            items = [
                next(item for item in each.perturbations if item.kind == kind)
                for each in (first, second)
            ]
            assert items[1].change == pytest.approx(items[0].change, rel=1e-6, abs=1e-9)
            assert items[1].effect.accuracy == items[0].effect.accuracy


@pytest.mark.parametrize("way", WAYS)
@fewer(3)
@given(seed=seeds)
@cell("explain", *WAYS)
def test_an_explanation_is_of_the_function(way: str, seed: int) -> None:
    one = world(seed)
    data = one.frame, np.array(one.right)
    found = [
        explain_predictions(each.model(), data, [0, 7], baseline="mean").explanations
        for each in (one, WAYS[way](one))
    ]
    for first, second in zip(*found, strict=True):
        assert (second.label, second.predicted) == (first.label, first.predicted)
        assert second.scores == pytest.approx(first.scores)
        for a, b in zip(first.attributions, second.attributions, strict=True):
            assert b.values == pytest.approx(a.values, rel=1e-6, abs=1e-9)
            assert b.score == pytest.approx(a.score)


@pytest.mark.parametrize("way", ["scaled branches", "other units", "same function"])
@fewer(3)
@given(seed=seeds)
@cell("load file", "scaled branches", "other units", "same function")
def test_a_file_is_read_as_the_function_that_was_saved(way: str, seed: int) -> None:
    one = world(seed)
    other = WAYS[way](one) if way in WAYS else other_units(one, np.random.default_rng(seed))
    loaded = replace(other, saved=True).model()
    assert loaded.module is not None
    torch.testing.assert_close(loaded.module(other.x), one.logits)
    (view,) = loaded.layers.values()
    torch.testing.assert_close(view.quadratic_map(other.x), one.logits)


# ---- modules of others


def mlp(seed: int) -> Any:
    module = nn.Sequential(nn.Linear(4, 9), nn.ReLU(), nn.Linear(9, 3)).double()
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for part in module.parameters():
            part.copy_(torch.randn(part.shape, generator=generator, dtype=torch.float64))
    return module


def permuted(module: Any, inputs: Tensor, outputs: Tensor) -> Any:
    """The module with input i where `inputs[i]` was, and outputs likewise."""
    moved = mlp(0)
    moved.load_state_dict(module.state_dict())
    with torch.no_grad():
        moved[0].weight.copy_(module[0].weight[:, inputs])
        moved[2].weight.copy_(module[2].weight[outputs])
        moved[2].bias.copy_(module[2].bias[outputs])
    return moved


@fewer(2)
@given(seed=seeds)
@cell("load module", "permuted inputs", "permuted outputs")
def test_a_module_is_read_in_its_own_order(seed: int) -> None:
    module = mlp(seed)
    inputs, outputs = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    (view,) = bl.from_module(permuted(module, inputs, outputs)).layers.values()
    x = torch.randn(20, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    read = view.weights(torch.float64)(x[:, inputs])
    torch.testing.assert_close(read, module(x)[:, outputs].detach())


@fewer(2)
@given(seed=seeds)
@cell("fit", "permuted inputs", "permuted outputs")
def test_a_fit_has_the_order_of_its_module(seed: int) -> None:
    module = mlp(seed)
    x = torch.randn(600, 4, generator=torch.Generator().manual_seed(2), dtype=torch.float64)
    inputs, outputs = torch.tensor([2, 0, 3, 1]), torch.tensor([1, 2, 0])
    one = bl.quadratic_fit(module, data=x)
    other = bl.quadratic_fit(permuted(module, inputs, outputs), data=x[:, inputs])
    torch.testing.assert_close(
        other.quadratic_map(x[:9, inputs]), one.quadratic_map(x[:9])[:, outputs]
    )
    assert other.r_squared.quadratic.overall == pytest.approx(one.r_squared.quadratic.overall)


@fewer(2)
@given(seed=seeds)
@cell("attribute", "without effect")
def test_a_baseline_counts(seed: int) -> None:
    """The one option of an attribution moves what the parts add up to."""
    one = world(seed)
    f, start = one.module.quadratic_map().detach(), one.x[3]
    for baseline in (None, start):
        told = bl.attribute(f, one.x, baseline).sum(dim=2)
        before = torch.zeros_like(start) if baseline is None else baseline
        torch.testing.assert_close(told, one.logits - one.module(before[None]).detach())


# ---- threads


def drawn_rows() -> Tensor:
    return torch.randn(400, 4, generator=torch.Generator().manual_seed(3), dtype=torch.float64)


def told_by(verb: str, root: Path) -> Any:
    one = world(5)
    data = one.frame, np.array(one.right)
    if verb == "load file":
        return replace(one, saved=True).model().module(one.x).tolist()  # type: ignore[misc]
    if verb == "load estimator":
        from sklearn.neural_network import MLPClassifier

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = MLPClassifier((5,), max_iter=4, random_state=0).fit(one.x.numpy(), one.right)
        (view,) = bl.from_sklearn(model).layers.values()
        return view.weights(torch.float64)(one.x).tolist()
    if verb == "audit":
        return bl.audit(one.model(), data).to_dict()
    if verb == "certify":
        return certify_model(one.model(), data, samples=3, truncate=2).to_dict()
    if verb == "attack":
        return attack_model(one.model(), data, target=1, epsilons=[0.0, 1.0]).to_dict()
    if verb == "explain":
        return explain_predictions(one.model(), data, [0, 5]).explanations[0].scores
    if verb == "attribute":
        return bl.attribute(one.module.quadratic_map().detach(), one.x).tolist()
    if verb == "fit":
        found = bl.quadratic_fit(mlp(1), data=drawn_rows())
        return found.quadratic_map(drawn_rows()[:9]).tolist()
    model, _ = trained(frame_of(2, 6), root)
    x = torch.linspace(-1, 1, 5 * model.module.embed.in_features).double().reshape(5, -1)
    return model.module.double()(x).tolist()


def check_close(one: Any, other: Any) -> None:
    """Numbers within what sums in another order leave; vectors that are drawn, of five digits."""
    if isinstance(one, dict):
        for name in one.keys() - {"reproduce"}:
            check_close(one[name], other[name])
    elif isinstance(one, list | tuple):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            check_close(*pair)
    elif isinstance(one, float):
        assert other == pytest.approx(one, rel=1e-6, abs=1e-4 if abs(one) < 1e-4 else 1e-6)
    else:
        assert one == other


THREADED = ("load file", "load estimator", "audit", "certify", "attack", "explain", "attribute")


@pytest.mark.parametrize("verb", [*THREADED, "fit", "train table"])
@cell("load file", "threads")
@cell("load estimator", "threads")
@cell("audit", "threads")
@cell("certify", "threads")
@cell("attack", "threads")
@cell("explain", "threads")
@cell("attribute", "threads")
@cell("fit", "threads")
@cell("train table", "threads")
def test_two_threads_say_what_one_says(verb: str, tmp_path: Path) -> None:
    before, found = torch.get_num_threads(), []
    try:
        for count in (1, 2):
            torch.set_num_threads(count)
            found.append(told_by(verb, tmp_path / str(count)))
    finally:
        torch.set_num_threads(before)
    check_close(*found)
