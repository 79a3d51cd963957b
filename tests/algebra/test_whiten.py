"""The metric of a covariance: what the spectra mean, and what does not change them.

Broken once: Σ in the place of its root; the variance of the output came out wrong.
"""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch

from bilens.algebra.cp.decompose import cp_decompose
from bilens.algebra.dual_directions import dual_expression
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.hosvd import hosvd
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.whiten import whiten
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import D_IN, randn, random_map

ROOT = randn(D_IN, D_IN, seed=3)
SIGMA = ROOT @ ROOT.T
F = random_map(2)
ROWS = torch.eye(F.sizes.d_out, dtype=torch.float64)

# name: what a verb makes of a map
VERBS: dict[str, Callable[[QuadraticMap], QuadraticMap | QuadraticForm]] = {
    "form": lambda f: f.form(ROWS[0]),
    "form in another dtype": lambda f: f.form(ROWS[0]).to(torch.float32).detach(),
    "another dtype": lambda f: f.to(torch.float32).detach(),
    "biases": lambda f: f.with_biases(f.tensor.left[:, 0], f.tensor.right[:, 0]),
    "compose_output": lambda f: f.compose_output(2 * ROWS),
    "plus_affine": lambda f: f.plus_affine(constant=ROWS[0]),
    "sum": lambda f: f + f,
    "eigen truncate": lambda f: eigendecompose(f.form(ROWS[0])).truncate(1),
    "eigen truncate_map": lambda f: eigendecompose_all(f).truncate_map(1),
    "hosvd form": lambda f: hosvd(f).form(0),
    "hosvd truncate": lambda f: hosvd(f).truncate(1, 1),
    "dual form": lambda f: dual_expression(f, ROWS).forms[0],
    "dual map": lambda f: dual_expression(f, ROWS).map,
    "cp": lambda f: cp_decompose(f, 1, num_starts=1, max_sweeps=2).quadratic_map(),
    "cp of zero": lambda f: cp_decompose(f.compose_output(0 * ROWS), 1).quadratic_map(),
}


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


@pytest.mark.parametrize("name", VERBS)
def test_what_a_verb_gives_back_is_in_the_basis_of_its_map(name: str) -> None:
    assert VERBS[name](whiten(F, SIGMA)).basis == "whitened"


def test_directions_without_variance_vanish() -> None:
    sigma = torch.diag(torch.tensor([1.0, 0, 0, 0, 4.0], dtype=torch.float64))
    eigs = eigendecompose_all(whiten(F, sigma), k=None)
    assert int((eigs.distinct_from_zero != 0).sum(dim=1).max()) == 2


@pytest.mark.parametrize("scale", [1e-30, 1.0, 1e30])
@pytest.mark.parametrize("seed", range(5))
def test_rounding_of_a_singular_covariance_leaks_no_direction(seed: int, scale: float) -> None:
    """Σ of rank 3: its two zero eigenvalues come out as ±1e-16, of which the root is 1e-8."""
    frame = randn(D_IN, 3, seed=seed)
    outside = torch.linalg.qr(frame, mode="complete").Q[:, 3:]
    f = whiten(F, scale * frame @ frame.T)
    assert float((f.tensor.left @ outside).norm() / f.tensor.left.norm()) < 1e-13
    assert float((f.linear @ outside).norm() / f.linear.norm()) < 1e-13
    distinct = eigendecompose_all(f, k=None).distinct_from_zero
    assert bool((distinct != 0).sum(dim=1).eq(3).all())


def test_an_eigenvector_has_a_pattern_of_inputs_and_a_covector_that_reads_them() -> None:
    """q(x) − constant terms = Σ λ (Σ^{-½}u · x)², and the inputs Σ^½u make z = u."""
    values, columns = torch.linalg.eigh(SIGMA)
    root, inverse = ((columns * values**power) @ columns.T for power in (0.5, -0.5))
    f = QuadraticMap(F.tensor)
    eig = eigendecompose(whiten(f, SIGMA).form(ROWS[0]), k=None)
    x = randn(7, D_IN, seed=5)
    read = x @ (eig.eigenvectors @ inverse).T
    torch.testing.assert_close((read.square() * eig.eigenvalues).sum(dim=1), f(x)[:, 0])
    torch.testing.assert_close(f(eig.eigenvectors @ root)[:, 0], eig.eigenvalues)


@pytest.mark.parametrize(
    ("covariance", "mean", "error", "message"),
    [
        (torch.eye(4), None, ShapeError, r"shape \(4, 4\); expected \(5, 5\)"),
        (torch.eye(5) * torch.nan, None, NonFiniteError, "covariance holds"),
        (torch.eye(5), torch.zeros(4), ShapeError, r"mean has shape \(4,\); expected \(5,\)"),
        (torch.eye(5), torch.zeros(1, 5), ShapeError, r"mean has shape \(1, 5\); expected \(5,\)"),
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
