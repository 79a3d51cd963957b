"""Gaussian inputs: whitened maps, moments, the assumed input of a fit; unit rows, the median."""

from collections.abc import Callable
from dataclasses import replace
from itertools import product

import numpy as np
import pytest
import torch
from hypothesis import given
from torch import Tensor

import oracles
from bilens.algebra import gaussian
from bilens.algebra.cp.cp_fit import cp_decompose
from bilens.algebra.directions import dual_expression
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.gaussian import (
    GaussianInput,
    gaussian_moments,
    geometric_median,
    mean_and_covariance,
    whiten,
)
from bilens.algebra.gram.kernel import unit_rows
from bilens.algebra.hosvd import hosvd
from bilens.algebra.map_comparison import similarity
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import D_IN, randn, random_map, seeded, vector
from strategies import entries

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
    "eigen truncate_map": lambda f: eigendecompose_all(f, k=2).truncate_map(1),
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
    assert f.basis.startswith("whitened ")
    assert whiten(F, 2 * SIGMA, mean).basis != f.basis == whiten(F, SIGMA, mean).basis
    z = randn(7, D_IN, seed=5)
    values, columns = torch.linalg.eigh(SIGMA)
    x = mean + z @ ((columns * values.sqrt()) @ columns.T)
    torch.testing.assert_close(f(z), F(x))


def test_the_spectrum_is_that_of_sigma_q_and_labelled() -> None:
    eigs = eigendecompose_all(whiten(F, SIGMA), k=None)
    assert eigs.basis.startswith("whitened ")
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
    assert VERBS[name](whiten(F, SIGMA)).basis.startswith("whitened ")


def test_maps_of_different_embeddings_do_not_compare_once_they_are_whitened() -> None:
    first, second = (whiten(replace(F, basis=name), SIGMA) for name in ("embedding 1", "input"))
    assert first.basis == f"{second.basis} of embedding 1"
    with pytest.raises(UsageError, match="of embedding 1 and the whitened"):
        similarity(first, second)


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
    covariance: torch.Tensor, mean: torch.Tensor | None, error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        whiten(F, covariance, mean)


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
    for c in range(f.sizes.d_out):
        u = torch.eye(f.sizes.d_out, dtype=torch.float64)[c]
        q = oracles.dense_interaction(f.tensor.down, f.tensor.left, f.tensor.right, u)
        slope = 2 * q @ mean + f.linear[c]
        average = (q @ sigma).trace() + mean @ q @ mean + f.linear[c] @ mean + f.constant[c]
        variance = 2 * (q @ sigma @ q @ sigma).trace() + slope @ sigma @ slope
        torch.testing.assert_close(found.mean[c], average)
        torch.testing.assert_close(found.variance[c], variance)
    assert float(gaussian_moments(f, mean, torch.zeros(d_in, d_in)).variance.max()) == 0


def test_what_is_no_distribution_is_refused() -> None:
    f = random_map()
    with pytest.raises(UsageError, match="not symmetric"):
        gaussian_moments(f, randn(5), randn(5, 5))
    with pytest.raises(UsageError, match="eigenvalue -1"):
        gaussian_moments(f, randn(5), -torch.eye(5))
    with pytest.raises(ShapeError, match=r"covariance has shape \(4, 4\)"):
        gaussian_moments(f, randn(5), torch.eye(4))
    with pytest.raises(ShapeError, match=r"mean has shape \(3,\)"):
        GaussianInput.from_moments(2, torch.ones(3), None)
    with pytest.raises(NonFiniteError, match="mean holds"):
        GaussianInput.from_moments(2, torch.full((2,), torch.nan), None)
    with pytest.raises(ShapeError, match=r"covariance has shape \(3, 3\)"):
        GaussianInput.from_moments(2, None, torch.eye(3))
    with pytest.raises(UsageError, match="not symmetric"):
        GaussianInput.from_moments(2, None, torch.tensor([[1.0, 0.5], [0.0, 1.0]]))
    with pytest.raises(UsageError, match="eigenvalue -1"):
        GaussianInput.from_moments(2, None, -torch.eye(2))
    with pytest.raises(UsageError, match=r"1 row\(s\)"):
        GaussianInput.of_data(torch.ones(1, 2))


def test_rows_read_covariances() -> None:
    half, rows = randn(5, 5), randn(3, 5, seed=1)
    assumed = GaussianInput.from_moments(5, randn(5, seed=2), half @ half.T)
    sigma = half @ half.T
    torch.testing.assert_close(assumed.times_covariance(rows), rows @ sigma)
    torch.testing.assert_close(assumed.spread(rows) @ assumed.spread(rows).T, rows @ sigma @ rows.T)
    torch.testing.assert_close(assumed.deviations(rows), (rows @ sigma @ rows.T).diagonal().sqrt())


def test_a_row_that_reads_nothing_that_varies_is_constant() -> None:
    half = randn(40, 6)
    sigma = half @ half.T
    blind = torch.linalg.svd(half.T).Vh[6:]  # what the columns of the root do not reach
    assumed = GaussianInput.from_moments(40, None, sigma)
    assert float(assumed.deviations(blind).max()) == 0
    assert float(assumed.deviations(blind + 1e-6 * half[:, 0]).min()) > 0


def test_samples_have_the_moments() -> None:
    half, mean = randn(3, 2), randn(3, seed=1)
    x = GaussianInput.from_moments(3, mean, half @ half.T).draw(200_000, seeded(0))
    torch.testing.assert_close(x.mean(dim=0), mean, atol=0.02, rtol=0)
    torch.testing.assert_close(x.T.cov(), half @ half.T, atol=0.05, rtol=0)


def test_moments_of_data_are_estimated() -> None:
    data = randn(500, 4) @ randn(4, 4, seed=1) + 3
    assumed = GaussianInput.of_data(data.float())
    torch.testing.assert_close(assumed.mean, data.mean(dim=0), atol=1e-5, rtol=1e-5)
    torch.testing.assert_close(assumed.root @ assumed.root.T, data.T.cov(), atol=1e-4, rtol=1e-5)
    assert assumed.about == "a normal input with mean and covariance of 500 rows of data"


def test_it_says_what_it_is() -> None:
    assert GaussianInput.from_moments(2, None, None).about == "a standard normal input"
    assert (
        GaussianInput.from_moments(2, torch.ones(2), None).about
        == "a normal input with the given mean"
    )
    both = GaussianInput.from_moments(2, torch.ones(2), torch.eye(2))
    assert both.about == "a normal input with the given mean and covariance"


@pytest.mark.parametrize("rows", [1, 4, 10, 4096])
def test_moments_do_not_depend_on_the_blocks(rows: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gaussian, "ROWS", rows)
    inputs = (randn(10, 3) + torch.tensor([0.0, 5.0, 0.0], dtype=torch.float64)).float()
    inputs[:, 2] = 0.25
    mean, covariance = mean_and_covariance(inputs)
    torch.testing.assert_close(mean, inputs.double().mean(dim=0), rtol=1e-12, atol=0)
    expected = torch.cov(inputs.double().T, correction=0)
    torch.testing.assert_close(covariance, expected, rtol=1e-12, atol=1e-15)
    assert covariance[2].tolist() == [0.0] * 3  # what is constant does not vary


@given(entries(3, 4))
def test_a_row_is_its_direction_times_its_length(rows: Tensor) -> None:
    unit, length = unit_rows(rows)
    torch.testing.assert_close(unit * length[:, None], rows)
    nonzero = length > 0
    torch.testing.assert_close(unit.norm(dim=1)[nonzero], torch.ones_like(length)[nonzero])
    torch.testing.assert_close(length, rows.norm(dim=1))


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_squares_that_would_overflow_or_vanish_do_no_harm(scale: float) -> None:
    unit, length = unit_rows(scale * torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8]], dtype=torch.float64))
    assert float(length / scale) == pytest.approx(5)


def test_a_row_of_zeros_stays_one() -> None:
    unit, length = unit_rows(torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(unit, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(length, vector(0, 0))


def test_the_gradient_of_direction_times_length_is_that_of_the_row() -> None:
    rows = randn(2, 3).requires_grad_()
    unit, length = unit_rows(rows)
    (gradient,) = torch.autograd.grad((unit * length[:, None]).square().sum(), rows)
    torch.testing.assert_close(gradient, 2 * rows.detach())


def drawn(rows: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, n, generator=seeded(seed), dtype=torch.float64)


def cost(x: Tensor, point: Tensor) -> float:
    return float((x - point).norm(dim=1).sum())


def test_no_step_away_from_it_makes_the_sum_smaller() -> None:
    x = drawn(200, 4)
    median = geometric_median(x)
    for direction in torch.cat([torch.eye(4), -torch.eye(4), drawn(20, 4, seed=1)]):
        for length in (1e-4, 1e-2, 1.0):
            assert cost(x, median) <= cost(x, median + length * direction) + 1e-9


def test_a_few_huge_rows_do_not_move_it() -> None:
    x = drawn(1000, 3)
    x[:50] += 1e6
    assert geometric_median(x).norm() < 0.5
    assert x.mean(dim=0).norm() > 1e4


def test_points_on_a_line_give_their_median() -> None:
    """In the second case the iteration starts at a row: the mean is one."""
    cases = (
        ([0.0, 1.0, 9.0], 1.0),
        ([-1.0, 0.0, 1.0], 0.0),
        ([0.0, 0.0, 0.0, 9.0], 0.0),
        ([4.0], 4.0),
    )
    for values, expected in cases:
        median = geometric_median(torch.tensor(values).double()[:, None])
        torch.testing.assert_close(median, torch.tensor([expected]).double(), atol=1e-4, rtol=0)


def test_a_row_that_is_the_median_is_returned_as_it_is() -> None:
    """The mean is the row in the middle, and the others pull at it with less than its weight."""
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]]).double()
    assert geometric_median(rows).tolist() == [0.0, 0.0]


def test_it_moves_and_scales_with_the_rows() -> None:
    x = drawn(100, 3)
    moved = geometric_median(1e-7 * x + 3.0)
    torch.testing.assert_close((moved - 3.0) / 1e-7, geometric_median(x), atol=1e-4, rtol=0)


def test_equal_rows_are_their_own_median() -> None:
    assert geometric_median(torch.full((5, 2), 0.3)).tolist() == pytest.approx([0.3, 0.3])


def test_what_has_no_median_is_refused() -> None:
    with pytest.raises(ShapeError, match="x has no rows"):
        geometric_median(torch.zeros(0, 3))
    with pytest.raises(ShapeError, match="2 axes were expected"):
        geometric_median(torch.zeros(3))
    with pytest.raises(NonFiniteError, match="x holds 1 non-finite"):
        geometric_median(torch.tensor([[1.0], [torch.nan]]))
