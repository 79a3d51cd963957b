"""The assumed input: its root, what a row reads of it, and what is no covariance.

Broken once: `deviations` without the cut at rounding; a constant row had a width.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.approximation.gaussian_input import GaussianInput
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import randn


def test_rows_read_covariances() -> None:
    half, rows = randn(5, 5), randn(3, 5, seed=1)
    assumed = GaussianInput.of(5, randn(5, seed=2), half @ half.T)
    sigma = half @ half.T
    torch.testing.assert_close(assumed.times_covariance(rows), rows @ sigma)
    torch.testing.assert_close(assumed.spread(rows) @ assumed.spread(rows).T, rows @ sigma @ rows.T)
    torch.testing.assert_close(assumed.deviations(rows), (rows @ sigma @ rows.T).diagonal().sqrt())


def test_a_row_that_reads_nothing_that_varies_is_constant() -> None:
    half = randn(40, 6)
    sigma = half @ half.T
    blind = torch.linalg.svd(half.T).Vh[6:]  # what the columns of the root do not reach
    assumed = GaussianInput.of(40, None, sigma)
    assert float(assumed.deviations(blind).max()) == 0
    assert float(assumed.deviations(blind + 1e-6 * half[:, 0]).min()) > 0


def test_samples_have_the_moments() -> None:
    half, mean = randn(3, 2), randn(3, seed=1)
    x = GaussianInput.of(3, mean, half @ half.T).draw(200_000, torch.Generator().manual_seed(0))
    torch.testing.assert_close(x.mean(dim=0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(x.T.cov(), half @ half.T, atol=0.05, rtol=0)


def test_moments_of_data_are_estimated() -> None:
    data = randn(500, 4) @ randn(4, 4, seed=1) + 3
    assumed = GaussianInput.of_data(data.float())
    torch.testing.assert_close(assumed.mean, data.mean(dim=0), atol=1e-5, rtol=1e-5)
    assert assumed.root is not None
    torch.testing.assert_close(assumed.root @ assumed.root, data.T.cov(), atol=1e-4, rtol=1e-5)
    assert assumed.about == "a normal input with mean and covariance of 500 rows of data"


def test_it_says_what_it_is() -> None:
    assert GaussianInput.of(2, None, None).about == "a standard normal input"
    assert GaussianInput.of(2, torch.ones(2), None).about == "a normal input with the given mean"
    both = GaussianInput.of(2, torch.ones(2), torch.eye(2))
    assert both.about == "a normal input with the given mean and covariance"


def test_what_is_no_distribution_is_refused() -> None:
    with pytest.raises(ShapeError, match=r"mean has shape \(3,\)"):
        GaussianInput.of(2, torch.ones(3), None)
    with pytest.raises(NonFiniteError, match="mean holds"):
        GaussianInput.of(2, torch.full((2,), torch.nan), None)
    with pytest.raises(ShapeError, match=r"covariance has shape \(3, 3\)"):
        GaussianInput.of(2, None, torch.eye(3))
    with pytest.raises(UsageError, match="not symmetric"):
        GaussianInput.of(2, None, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(UsageError, match="eigenvalue -1"):
        GaussianInput.of(2, None, -torch.eye(2))
    with pytest.raises(UsageError, match=r"1 row\(s\)"):
        GaussianInput.of_data(torch.ones(1, 2))
