"""Moments of the truncation error against the map of the error itself, and refusals.

Broken once: the 4 of the variance made a 2; the comparison with the error's own map failed.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.gaussian_moments import gaussian_moments
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError, UsageError
from bilens.certify.truncated_moments import truncation_moments
from builders import form_of, randn, random_map


@pytest.mark.parametrize("k", [0, 1, 3, 6])
def test_moments_are_those_of_the_difference(k: int) -> None:
    f, half, mean = random_map(seed=1, d_hidden=9, d_in=6), randn(6, 6, seed=2), randn(6, seed=3)
    eigs = eigendecompose_all(f, k=None)
    short = eigs.truncate_map(k).tensor
    tensor = BilinearTensor(
        torch.cat([f.tensor.down, -short.down], dim=1),
        torch.cat([f.tensor.left, short.left]),
        torch.cat([f.tensor.right, short.right]),
    )
    expected = gaussian_moments(QuadraticMap(tensor), mean, half @ half.T)
    found = truncation_moments(eigs, k, mean, half @ half.T)
    torch.testing.assert_close(found.mean, expected.mean, atol=1e-10, rtol=1e-10)
    torch.testing.assert_close(found.variance, expected.variance, atol=1e-8, rtol=1e-10)
    one = truncation_moments(eigs[1], k, mean, half @ half.T)
    torch.testing.assert_close(one.variance, found.variance[1])


def test_samples_have_these_moments() -> None:
    form, half = form_of(randn(5, 5, seed=4), randn(5, seed=5)), randn(5, 5, seed=6)
    eig = eigendecompose(form)
    x = 1 + randn(400_000, 5, seed=7) @ half.T
    error = form(x) - eig.truncate(2)(x)
    found = truncation_moments(eig, 2, torch.ones(5).double(), half @ half.T)
    assert float(found.mean) == pytest.approx(float(error.mean()), rel=0.02)
    assert float(found.variance) == pytest.approx(float(error.var()), rel=0.03)


def test_what_does_not_fit_is_refused() -> None:
    f, mean, eye = random_map(seed=2, d_hidden=2, d_in=12), randn(12), torch.eye(12).double()
    whole = eigendecompose_all(f, k=None)
    with pytest.raises(UsageError, match="3 of 12 pairs are at hand"):
        truncation_moments(eigendecompose_all(f, k=3), 1, mean, eye)
    with pytest.raises(UsageError, match="not symmetric"):
        truncation_moments(whole, 1, mean, randn(12, 12))
    with pytest.raises(ShapeError, match=r"mean has shape \(11,\)"):
        truncation_moments(whole, 1, mean[1:], eye)
