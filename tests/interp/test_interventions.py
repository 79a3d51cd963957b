"""A planted product is turned around by trading the coordinates of its two eigenvectors."""

import pytest
import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.contrasts import contrast_directions, opposed_directions, weighted_space
from bilens.interp.interventions import sign_flip
from builders import randn

EYE = torch.eye(5).double()
X = randn(2000, 5) * torch.tensor([1.0, 0.5, 2.0, 1.0, 1.0]).double() + 0.3


def planted(linear: float) -> QuadraticMap:
    """Outputs ±2 n s of inputs 0 and 1 with a linear term in n; a square of input 2."""
    down = torch.tensor([[2.0, 0], [-2, 0], [0, 1]]).double()
    slope = torch.zeros(3, 5).double()
    slope[0, 0] = linear
    return QuadraticMap(BilinearTensor(down, EYE[[0, 2]], EYE[[1, 2]]), slope)


def everywhere(x: Tensor) -> Tensor:
    return torch.ones(x.shape[:-1], dtype=torch.bool)


@pytest.mark.parametrize("linear", [0.0, 1.5, -4.0])
def test_the_difference_is_turned_around_and_nothing_else_moves(linear: float) -> None:
    g = planted(linear)
    along = opposed_directions(g, 0, 1, X, g(X).relu())
    flip = sign_flip(g, 0, 1, along)
    edited = flip.edit(along.patterns, everywhere)(X)
    before, after = (values[:, 0] - values[:, 1] for values in (g(X), g(edited)))
    level = (before + after) / 2  # the stationary value, the same for all inputs
    torch.testing.assert_close(level, level[:1].expand(len(level)))
    assert float(before.std()) > 1
    back = flip.edit(along.patterns, everywhere)(edited)
    torch.testing.assert_close(back, X)  # a reflection
    others = ((X - along.mean) - (X - along.mean) @ along.readers.T @ along.patterns) - (
        (edited - along.mean) - (edited - along.mean) @ along.readers.T @ along.patterns
    )
    assert float(others.abs().max()) < 1e-9


def test_the_sign_that_is_taken_moves_inputs_less() -> None:
    g = planted(1.5)
    z = g(X).relu()
    along = opposed_directions(g, 0, 1, X, z)
    flip = sign_flip(g, 0, 1, along)
    weight = (z[:, :2] / z[:, :2].sum(dim=0)).sum(dim=1)

    def moved(sign: float) -> float:
        found = type(flip)(along, flip.centre, sign).edit(along.patterns, everywhere)(X)
        step = (found - X) @ along.readers.T
        return float((weight * step.square().sum(dim=1)).sum())

    assert moved(flip.sign) < moved(-flip.sign)


def test_only_the_inputs_that_are_named_are_touched_and_dtypes_stay() -> None:
    g = planted(0.0)
    along = opposed_directions(g, 0, 1, X, g(X).relu())
    edit = sign_flip(g, 0, 1, along).edit(along.patterns, lambda x: x[:, 0] > 1)
    changed = (edit(X.float()) != X.float()).any(dim=1)
    assert changed.tolist() == (X.float()[:, 0] > 1).tolist()
    assert edit(X.float()).dtype == torch.float32


def test_opposed_directions_are_the_extreme_eigenpairs() -> None:
    g = planted(0.0)
    z = g(X).relu()
    along = opposed_directions(g, 0, 2, X, z)
    every = contrast_directions(g, 0, 2, X, z, k=5)
    ends = [float(every.eigenvalues.max()), float(every.eigenvalues.min())]
    assert along.eigenvalues.tolist() == pytest.approx(ends)
    torch.testing.assert_close(along.readers @ along.patterns.T, torch.eye(2).double())
    square = BilinearTensor(torch.tensor([[1.0], [0.0]]).double(), EYE[:1], EYE[:1])
    lone = QuadraticMap(square)
    only = opposed_directions(lone, 0, 1, X, X[:, :2].abs())
    assert only.eigenvalues.shape == (1,)
    with pytest.raises(UsageError, match="one above zero"):
        sign_flip(lone, 0, 1, only)


def test_patterns_of_another_number_are_refused() -> None:
    g = planted(0.0)
    z = g(X).relu()
    along = opposed_directions(g, 0, 1, X, z)
    random = weighted_space(g, 0, 1, X, z).random(1, torch.Generator().manual_seed(0))
    with pytest.raises(ShapeError, match="was expected"):
        sign_flip(g, 0, 1, along).edit(random.patterns, everywhere)
