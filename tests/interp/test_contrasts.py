"""Latents whose difference is a planted product, directions that carry it, and their edits."""

import pytest
import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError, ShapeError, UsageError
from bilens.interp.contrasts import (
    contrast_directions,
    opposed_directions,
    rank_contrasts,
    weighted_space,
)
from bilens.interp.interventions import InputDirections, ablation, causal_check, sign_flip, steering
from builders import randn

EYE = torch.eye(5).double()
NUM = 3000


def planted() -> QuadraticMap:
    """Outputs ±2 n s of inputs 0 and 1; ±2 of input 2, linear; and a square of input 3."""
    down = torch.tensor([[2.0, 0], [-2, 0], [0, 0], [0, 0], [0, 2]]).double()
    left, right = EYE[[0, 3]], EYE[[1, 3]]
    linear = torch.zeros(5, 5).double()
    linear[2, 2], linear[3, 2] = 2.0, -2.0
    return QuadraticMap(BilinearTensor(down, left, right), linear)


def inputs() -> Tensor:
    """Signs in the first three inputs, of mean ½ in the last two; the rest is noise."""
    signs = torch.randint(0, 2, (NUM, 3), generator=torch.Generator().manual_seed(0)) * 2.0 - 1
    return torch.cat([signs.double() + 0.05 * randn(NUM, 3), randn(NUM, 2, seed=1) + 0.5], dim=1)


G, X = planted(), inputs()
Z = G(X).relu()


def everywhere(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:-1], dtype=torch.bool)


def test_a_product_that_decides_comes_first_and_a_linear_feature_does_not() -> None:
    found = rank_contrasts(G, X, Z)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    assert pairs[0] == (0, 1)
    assert len(pairs) == 10
    assert float(found.nonlinear_share[0]) > 0.98
    assert float(found.pair_share[0]) == pytest.approx(1)
    assert float(found.nonlinear_share[pairs.index((2, 3))]) < 1e-6
    torch.testing.assert_close(found.score, found.nonlinear_share * found.pair_share)


def test_the_nonlinear_share_is_one_minus_r_squared_of_weighted_least_squares() -> None:
    found = rank_contrasts(G, X, Z)
    pairs = list(zip(found.first.tolist(), found.second.tolist(), strict=True))
    weight = (Z[:, 1] / Z[:, 1].sum() + Z[:, 4] / Z[:, 4].sum()).sqrt()[:, None]
    design = torch.cat([torch.ones(NUM, 1).double(), X], dim=1) * weight
    target = (G(X)[:, 1] - G(X)[:, 4])[:, None]
    rest = target * weight - design @ torch.linalg.lstsq(design, target * weight).solution
    mean = (target * weight**2).sum() / (weight**2).sum()
    total = (((target - mean) * weight) ** 2).sum()
    share = float(found.nonlinear_share[pairs.index((1, 4))])
    assert share == pytest.approx(float((rest**2).sum() / total), rel=1e-6)


def test_a_latent_that_is_hardly_active_is_left_out() -> None:
    z = Z.clone()
    z[10:, 1] = 0
    found = rank_contrasts(G, X, z)
    assert 1 not in {*found.first.tolist(), *found.second.tolist()}
    with pytest.raises(UsageError, match="1 of 5 output latents"):
        rank_contrasts(G, X, torch.cat([Z[:, :1], torch.zeros(NUM, 4).double()], dim=1))


def test_directions_are_dual_and_their_coordinates_have_unit_variance() -> None:
    found = contrast_directions(G, 0, 1, X, Z, k=4)
    torch.testing.assert_close(found.readers @ found.patterns.T, torch.eye(4).double())
    weight = Z[:, 0] / Z[:, 0].sum() + Z[:, 1] / Z[:, 1].sum()
    weight = weight / weight.sum()
    coordinates = (X - found.mean) @ found.readers.T
    torch.testing.assert_close(
        (coordinates * weight[:, None]).T @ coordinates, torch.eye(4).double()
    )
    first, second = found.eigenvalues[:2].tolist()
    assert first == pytest.approx(-second, rel=0.05)
    assert abs(first) == pytest.approx(2, rel=0.05)  # 4 n s of signs: ±½ · 4
    assert float(found.eigenvalues[2:].abs().max()) < 0.1


def test_random_directions_are_as_long_where_inputs_vary() -> None:
    space = weighted_space(G, 0, 1, X, Z)
    found = space.random(2, torch.Generator().manual_seed(0))
    torch.testing.assert_close(found.readers @ found.patterns.T, torch.eye(2).double())
    flat = weighted_space(G, 0, 1, torch.cat([X[:, :4], 0 * X[:, :1]], dim=1), Z)
    assert float(flat.random(3, torch.Generator()).patterns[:, 4].abs().max()) < 1e-12


def test_ablation_removes_the_product_and_steering_turns_it_around() -> None:
    directions = contrast_directions(G, 0, 1, X, Z, k=2)
    edited = ablation(directions, everywhere)(X)
    assert float(G(edited)[:, 0].std()) < 0.05 * float(G(X)[:, 0].std())
    torch.testing.assert_close(edited[:, 3], X[:, 3], atol=0.2, rtol=0)
    coordinates = (X - directions.mean) @ directions.readers.T
    torch.testing.assert_close(
        ablation(directions, lambda x: x[:, 0] > 5)(X), X
    )  # nothing is touched elsewhere
    shift = torch.tensor([0.5, -0.25]).double()
    moved = steering(directions, shift, everywhere)(X)
    torch.testing.assert_close(
        (moved - directions.mean) @ directions.readers.T, coordinates + shift
    )
    with pytest.raises(ShapeError, match="one number a direction"):
        steering(directions, shift[:1], everywhere)


def test_edits_keep_the_dtype_of_what_they_edit() -> None:
    one = InputDirections(EYE[:1], EYE[:1], torch.zeros(5).double(), torch.ones(1).double())
    assert ablation(one, everywhere)(X.float()).dtype == torch.float32
    torch.testing.assert_close(ablation(one, everywhere)(X)[:, 1:], X[:, 1:])


def test_shares_are_of_the_means_and_intervals_hold_them() -> None:
    before, after = 10 + randn(200), 2 + randn(200, seed=1)
    random = [before - 0.3, before + 0.1, before - 0.8]
    found = causal_check("ablate", 2, before, after, random, torch.Generator().manual_seed(0))
    share = 1 - float(after.mean() / before.mean())
    assert found.share.value == pytest.approx(share)
    assert found.share.low < share < found.share.high
    assert found.share.high - found.share.low < 0.1
    assert found.random_share.value == pytest.approx(1 / 3 / float(before.mean()))
    assert (found.num_random, found.loss_before) == (3, None)
    made = causal_check("steer", 2, before, after, random, torch.Generator(), (1.0, 1.5))
    assert made.share.value == pytest.approx(1 - share)
    assert (made.loss_before, made.loss_after) == (1.0, 1.5)


def test_bad_requests_are_refused() -> None:
    with pytest.raises(ShapeError, match=r"expected \(3000, 5\)"):
        rank_contrasts(G, X, Z[:, :3])
    with pytest.raises(UsageError, match="given twice"):
        contrast_directions(G, 1, 1, X, Z)
    with pytest.raises(UsageError, match="output latent 7 does not exist"):
        contrast_directions(G, 1, 7, X, Z)
    with pytest.raises(MemoryLimitError, match="moments of 5 output latents"):
        rank_contrasts(G, X, Z, memory_limit=1000)
    with pytest.raises(UsageError, match="a behaviour above zero"):
        causal_check("ablate", 1, -X[:, 3] - 9, X[:, 3], [X[:, 3]], torch.Generator())
    with pytest.raises(ShapeError, match=r"expected \(3000,\)"):
        causal_check("ablate", 1, X[:, 3] + 9, X[:9, 3], [X[:, 3]], torch.Generator())


INPUTS = randn(2000, 5) * torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0]).double() + 0.3


def planted_with_linear(linear: float) -> QuadraticMap:
    """Outputs ±2 n s of inputs 0 and 1 with a linear term in n; a square of input 2."""
    down = torch.tensor([[2.0, 0], [-2, 0], [0, 1]]).double()
    slope = torch.zeros(3, 5).double()
    slope[0, 0] = linear
    return QuadraticMap(BilinearTensor(down, EYE[[0, 2]], EYE[[1, 2]]), slope)


@pytest.mark.parametrize("linear", [0.0, 1.5, -4.0])
def test_the_difference_is_turned_around_and_nothing_else_moves(linear: float) -> None:
    g = planted_with_linear(linear)
    along = opposed_directions(g, 0, 1, INPUTS, g(INPUTS).relu())
    flip = sign_flip(g, 0, 1, along)
    edited = flip.edit(along.patterns, everywhere)(INPUTS)
    before, after = (values[:, 0] - values[:, 1] for values in (g(INPUTS), g(edited)))
    level = (before + after) / 2  # the stationary value, the same for all inputs
    torch.testing.assert_close(level, level[:1].expand(len(level)))
    assert float(before.std()) > 1
    back = flip.edit(along.patterns, everywhere)(edited)
    torch.testing.assert_close(back, INPUTS)  # a reflection
    others = ((INPUTS - along.mean) - (INPUTS - along.mean) @ along.readers.T @ along.patterns) - (
        (edited - along.mean) - (edited - along.mean) @ along.readers.T @ along.patterns
    )
    assert float(others.abs().max()) < 1e-9


def test_the_sign_that_is_taken_moves_inputs_less() -> None:
    g = planted_with_linear(1.5)
    z = g(INPUTS).relu()
    along = opposed_directions(g, 0, 1, INPUTS, z)
    flip = sign_flip(g, 0, 1, along)
    weight = (z[:, :2] / z[:, :2].sum(dim=0)).sum(dim=1)

    def moved(sign: float) -> float:
        found = type(flip)(along, flip.centre, sign).edit(along.patterns, everywhere)(INPUTS)
        step = (found - INPUTS) @ along.readers.T
        return float((weight * step.square().sum(dim=1)).sum())

    assert moved(flip.sign) < moved(-flip.sign)


def test_only_the_inputs_that_are_named_are_touched_and_dtypes_stay() -> None:
    g = planted_with_linear(0.0)
    along = opposed_directions(g, 0, 1, INPUTS, g(INPUTS).relu())
    edit = sign_flip(g, 0, 1, along).edit(along.patterns, lambda x: x[:, 0] > 1)
    changed = (edit(INPUTS.float()) != INPUTS.float()).any(dim=1)
    assert changed.tolist() == (INPUTS.float()[:, 0] > 1).tolist()
    assert edit(INPUTS.float()).dtype == torch.float32


def test_opposed_directions_are_the_extreme_eigenpairs() -> None:
    g = planted_with_linear(0.0)
    z = g(INPUTS).relu()
    along = opposed_directions(g, 0, 2, INPUTS, z)
    every = contrast_directions(g, 0, 2, INPUTS, z, k=5)
    ends = [float(every.eigenvalues.max()), float(every.eigenvalues.min())]
    assert along.eigenvalues.tolist() == pytest.approx(ends)
    torch.testing.assert_close(along.readers @ along.patterns.T, torch.eye(2).double())
    square = BilinearTensor(torch.tensor([[1.0], [0.0]]).double(), EYE[:1], EYE[:1])
    lone = QuadraticMap(square)
    only = opposed_directions(lone, 0, 1, INPUTS, INPUTS[:, :2].abs())
    assert only.eigenvalues.shape == (1,)
    with pytest.raises(UsageError, match="one above zero"):
        sign_flip(lone, 0, 1, only)


def test_patterns_of_another_number_are_refused() -> None:
    g = planted_with_linear(0.0)
    z = g(INPUTS).relu()
    along = opposed_directions(g, 0, 1, INPUTS, z)
    random = weighted_space(g, 0, 1, INPUTS, z).random(1, torch.Generator().manual_seed(0))
    with pytest.raises(ShapeError, match="patterns has shape"):
        sign_flip(g, 0, 1, along).edit(random.patterns, everywhere)
