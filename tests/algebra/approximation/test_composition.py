"""A quadratic of a quadratic, brought back to degree two: against least squares by quadrature.

Broken once: the factor 2 of the products of matrices left out; no composition was the best one.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch
from torch import Tensor

from bilens.algebra.approximation.composition import closest_composition, output_moments
from bilens.algebra.approximation.gaussian_input import GaussianInput
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import MemoryLimitError
from builders import randn, random_map

D_IN = 3
SIZES = [(4, 5, 6, 2), (1, 2, 3, 2), (2, 1, 1, 1)]  # hidden, out; hidden, out
HALF = 0.6 * randn(D_IN, D_IN, seed=5)
INPUTS = {
    "standard": GaussianInput.of(D_IN, None, None),
    "general": GaussianInput.of(D_IN, randn(D_IN, seed=6), HALF @ HALF.T),
    "singular": GaussianInput.of(D_IN, randn(D_IN, seed=6), HALF[:, :2] @ HALF[:, :2].T),
}


def grid(assumed: GaussianInput) -> tuple[Tensor, Tensor]:
    """Points and weights, exact for polynomials of degree 23 an axis."""
    nodes, weights = np.polynomial.hermite_e.hermegauss(12)
    z = torch.tensor(list(product(nodes, repeat=D_IN)), dtype=torch.float64)
    share = torch.tensor(list(product(weights / weights.sum(), repeat=D_IN))).prod(dim=1)
    return assumed.mean + assumed.spread(z), share


def maps(sizes: tuple[int, int, int, int]) -> tuple[QuadraticMap, QuadraticMap]:
    """An inner and an outer map with linear and constant terms."""
    hidden, middle, above, out = sizes
    return random_map(1, middle, hidden, D_IN), random_map(2, out, above, middle)


@pytest.mark.parametrize("name", INPUTS)
def test_moments_are_those_of_quadrature(name: str) -> None:
    inner, assumed = maps(SIZES[0])[0], INPUTS[name]
    x, share = grid(assumed)
    y = inner(x)
    mean = share @ y
    found = output_moments(inner, assumed)
    torch.testing.assert_close(found.mean, mean)
    torch.testing.assert_close(found.covariance, ((y - mean) * share[:, None]).T @ (y - mean))


@pytest.mark.parametrize("name", INPUTS)
@pytest.mark.parametrize("sizes", SIZES)
def test_it_is_least_squares_by_quadrature(sizes: tuple[int, int, int, int], name: str) -> None:
    (inner, outer), assumed = maps(sizes), INPUTS[name]
    x, share = grid(assumed)
    first, second = torch.triu_indices(D_IN, D_IN)
    features = torch.cat([torch.ones_like(x[:, :1]), x, x[:, first] * x[:, second]], dim=1)
    y, root = outer(inner(x)), share.sqrt()[:, None]
    best = features @ torch.linalg.pinv(features * root, rtol=1e-10) @ (y * root)
    found = closest_composition(outer, inner, assumed)(x)
    assert float(((best - found) * root).norm() / (y * root).norm()) < 1e-9


def test_a_straight_outer_map_changes_nothing() -> None:
    inner = random_map(1, 4, 5, D_IN)
    zero = BilinearTensor(torch.zeros(2, 1), torch.zeros(1, 4), torch.zeros(1, 4))
    outer = QuadraticMap(zero, torch.ones(2, 4), torch.ones(2)).to(torch.float64)
    x = randn(20, D_IN, seed=8)
    found = closest_composition(outer, inner, INPUTS["general"])
    torch.testing.assert_close(found(x), outer(inner(x)))


def test_factors_that_would_not_fit_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "1k")
    inner, outer = maps(SIZES[0])
    with pytest.raises(MemoryLimitError, match="fit the layers one by one"):
        closest_composition(outer, inner, INPUTS["standard"])
