"""The metric of a covariance: what the spectra mean, and what does not change them.

Broken once: Σ in the place of its root; the variance of the output came out wrong.
"""

from __future__ import annotations

import pytest
import torch

from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.whiten import whiten
from bilens.errors import NonFiniteError, ShapeError, UsageError
from builders import D_IN, randn, random_map

ROOT = randn(D_IN, D_IN, seed=3)
SIGMA = ROOT @ ROOT.T
F = random_map(2)


def test_the_map_is_the_same_function_in_other_coordinates() -> None:
    mean = randn(D_IN, seed=4)
    f = whiten(F, SIGMA, mean)
    assert f.basis == "whitened"
    z = randn(7, D_IN, seed=5)
    values, columns = torch.linalg.eigh(SIGMA)
    x = mean + z @ ((columns * values.sqrt()) @ columns.T)
    torch.testing.assert_close(f(z), F(x))


def test_the_spectrum_is_that_of_sigma_q_and_labelled() -> None:
    eigs = eigendecompose_all(whiten(F, SIGMA), k=None)
    assert eigs.basis == "whitened"
    for c in range(F.sizes.d_out):
        q = F.form(torch.eye(F.sizes.d_out, dtype=torch.float64)[c]).dense()
        expected = torch.linalg.eigvals(SIGMA @ q).real.sort().values
        torch.testing.assert_close(eigs.eigenvalues[c].sort().values, expected)
        variance = 2 * torch.trace(SIGMA @ q @ SIGMA @ q)
        torch.testing.assert_close(2 * eigs.eigenvalues[c].square().sum(), variance)


def test_the_spectrum_does_not_depend_on_how_the_input_is_written() -> None:
    """x = T y: the map y ↦ f(T y) with the covariance of y."""
    turn = randn(D_IN, D_IN, seed=6) + 3 * torch.eye(D_IN, dtype=torch.float64)
    back = torch.linalg.inv(turn)
    here = eigendecompose_all(whiten(F, SIGMA), k=None).eigenvalues
    there = whiten(F.compose_input(turn), back @ SIGMA @ back.T)
    torch.testing.assert_close(eigendecompose_all(there, k=None).eigenvalues, here)


def test_directions_without_variance_vanish() -> None:
    sigma = torch.diag(torch.tensor([1.0, 0, 0, 0, 4.0], dtype=torch.float64))
    eigs = eigendecompose_all(whiten(F, sigma), k=None)
    assert int((eigs.distinct_from_zero != 0).sum(dim=1).max()) == 2


@pytest.mark.parametrize(
    ("covariance", "mean", "error", "message"),
    [
        (torch.eye(4), None, ShapeError, r"shape \(4, 4\); expected \(5, 5\)"),
        (torch.eye(5) * torch.nan, None, NonFiniteError, "covariance holds"),
        (torch.eye(5), torch.zeros(4), ShapeError, "bias has shape"),
        (torch.ones(5, 5).triu(), None, UsageError, "is not symmetric"),
        (-torch.eye(5), None, UsageError, "eigenvalue -1; none below zero"),
        (torch.eye(5, dtype=torch.int64), None, ShapeError, "dtype torch.int64"),
    ],
)
def test_what_is_no_covariance_is_refused(
    covariance: torch.Tensor,
    mean: torch.Tensor | None,
    error: type[Exception],
    message: str,
) -> None:
    with pytest.raises(error, match=message):
        whiten(F, covariance, mean)
