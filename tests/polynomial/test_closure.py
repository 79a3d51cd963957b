"""Guards against a closure that is called exact, and against measured errors that are wrong."""

import pytest
import torch

import bilens as bl
from bilens.base.errors import ShapeError, UsageError
from bilens.polynomial.network import PolynomialNetwork
from polynomial.test_composition import GRID, drawn_input, expected_moments, two_layers
from polynomial.test_reading import transformer


def stack(depth: int) -> PolynomialNetwork:
    parts = tuple(
        part for seed in range(depth) for part in two_layers(seed, residual=True, bias=True).parts
    )[:depth]
    return PolynomialNetwork(parts)


def test_one_layer_and_the_mean_of_two_are_exact() -> None:
    mean, covariance = drawn_input()
    x = GRID @ torch.linalg.cholesky(covariance).T + mean
    for depth in (1, 2):
        f = stack(depth)
        found = bl.approximate_moments(f, mean, covariance, num_samples=2)
        middle, spread = expected_moments(f, f, x)
        torch.testing.assert_close(found.mean, middle, rtol=1e-9, atol=1e-9)
        if depth == 1:
            torch.testing.assert_close(found.covariance, spread, rtol=1e-9, atol=1e-9)
        else:
            assert not torch.allclose(found.covariance, spread, rtol=1e-2)


def test_of_two_layers_the_measured_error_is_the_real_one() -> None:
    f = two_layers(0, residual=True, bias=True)
    small = torch.eye(3).double() / 100  # light tails: a sample measures its variance
    exact = bl.output_moments(f, covariance=small)
    found = bl.approximate_moments(f, covariance=small, num_samples=200_000, seed=3)
    far = found.sampled_mean - exact.mean
    assert bool((far.abs() < 4 * found.mean_standard_error).all())
    far = found.sampled_covariance.diagonal() - exact.covariance.diagonal()
    assert bool((far.abs() < 4 * found.variance_standard_error).all())
    expected = found.covariance.diagonal().sum() / exact.covariance.diagonal().sum()
    assert found.variance_ratio == pytest.approx(float(expected), rel=0.02)
    assert found.mean_error < 0.02
    assert 1 / 200_000 < found.largest_share < 0.001


def test_of_three_layers_the_sample_is_of_the_network_itself() -> None:
    """Computed anew, from the same draws; the closure's variance is too small there."""
    f = stack(3)
    found = bl.approximate_moments(f, num_samples=5000, seed=1)
    generator = torch.Generator().manual_seed(1)
    x = torch.cat(
        [torch.randn(n, 3, generator=generator, dtype=torch.float64) for n in (4096, 904)]
    )
    y = f(x)
    torch.testing.assert_close(found.sampled_mean, y.mean(dim=0))
    torch.testing.assert_close(found.sampled_covariance, torch.cov(y.T))
    far = (y - y.mean(dim=0)).square()
    torch.testing.assert_close(found.variance_standard_error, far.std(dim=0) / 5000**0.5)
    total = far.sum(dim=1)
    assert found.largest_share == pytest.approx(float(total.max() / total.sum()))
    assert found.largest_share > 0.05  # heavy tails, and it is said
    assert found.variance_ratio < 0.9


def test_what_has_no_closure_is_refused_and_the_exact_name_points_here() -> None:
    with pytest.raises(UsageError, match=r"use bl\.approximate_moments"):
        bl.output_moments(stack(3))
    with pytest.raises(UsageError, match="approximated of layers that read vectors"):
        bl.approximate_moments(bl.polynomial_network(transformer()))
    with pytest.raises(UsageError, match="num_samples"):
        bl.approximate_moments(stack(1), num_samples=1)
    with pytest.raises(ShapeError, match="expected"):
        bl.approximate_moments(stack(1), torch.zeros(4))
