"""Gaussian moments against exact quadrature, and the formulas written with arrays.

Broken once: `2 *` of the variance dropped; everything failed.
"""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
import torch

import oracles
from bilens.algebra.gaussian_moments import gaussian_moments
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError, UsageError
from builders import randn, random_map


@pytest.mark.parametrize("f", [random_map(seed=1, d_in=3), QuadraticMap(random_map(d_in=3).tensor)])
def test_moments_are_those_of_quadrature(f: QuadraticMap) -> None:
    """Gauss–Hermite with four points an axis is exact for polynomials of degree seven."""
    half, mean = randn(3, 3, seed=2), randn(3, seed=3)
    nodes, weights = np.polynomial.hermite_e.hermegauss(4)
    grid = torch.tensor(list(product(nodes, repeat=3)), dtype=torch.float64)
    share = torch.tensor(list(product(weights / weights.sum(), repeat=3))).prod(dim=1)
    values = f(mean + grid @ half.T)
    average = share @ values
    found = gaussian_moments(f, mean, half @ half.T)
    torch.testing.assert_close(found.mean, average)
    torch.testing.assert_close(found.variance, share @ (values - average).square())


def test_moments_are_those_of_the_formulas() -> None:
    f, d_in = random_map(seed=4, d_in=6), 6
    half, mean = randn(6, 2, seed=5), randn(6, seed=6)  # of rank two: singular
    sigma = half @ half.T
    found = gaussian_moments(f.to(torch.float64), mean, sigma)
    assert f.linear is not None
    assert f.constant is not None
    for c in range(f.sizes.d_out):
        u = torch.eye(f.sizes.d_out, dtype=torch.float64)[c]
        q = oracles.dense_interaction(f.tensor.down, f.tensor.left, f.tensor.right, u)
        slope = 2 * q @ mean + f.linear[c]
        average = (q @ sigma).trace() + mean @ q @ mean + f.linear[c] @ mean + f.constant[c]
        variance = 2 * (q @ sigma @ q @ sigma).trace() + slope @ sigma @ slope
        torch.testing.assert_close(found.mean[c], average)
        torch.testing.assert_close(found.variance[c], variance)
    assert float(gaussian_moments(f, mean, torch.zeros(d_in, d_in)).variance.max()) == 0


def test_what_is_no_covariance_is_refused() -> None:
    f = random_map()
    with pytest.raises(UsageError, match="not symmetric"):
        gaussian_moments(f, randn(5), randn(5, 5))
    with pytest.raises(UsageError, match="eigenvalue -1"):
        gaussian_moments(f, randn(5), -torch.eye(5))
    with pytest.raises(ShapeError, match=r"covariance has shape \(4, 4\)"):
        gaussian_moments(f, randn(5), torch.eye(4))
