"""A matrix in a scale of its own, and weights whose sums cancel or whose neurons are dead."""

from fractions import Fraction

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.directions import centred_directions
from bilens.algebra.eigen.decomposition import Proof, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose, eigendecompose_all
from bilens.algebra.eigen.proofs import norms_with_error
from bilens.algebra.eigen.solver import (
    BalancedForms,
    Problem,
    balance_all,
    halved_rows,
    problem_of_form,
    problem_of_map,
    widened,
)
from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from builders import D_HIDDEN, D_IN, D_OUT, randn, random_map, random_tensor, vector
from strategies import SCALES, maps_with_direction


def balance(matrix: InteractionMatrix) -> BalancedForms:
    return balance_all(matrix.left, matrix.right, matrix.weight[None])


@given(maps_with_direction())
def test_it_is_the_same_matrix_in_another_unit(drawn: tuple[QuadraticMap, Tensor]) -> None:
    matrix = drawn[0].form(drawn[1]).matrix
    balanced = balance(matrix)
    torch.testing.assert_close(balanced.units[0] * balanced.dense(0), matrix.dense())
    largest = float(balanced.weights[0].abs().max())
    assert largest == 0 or 1 / 8 <= largest <= 1
    assert (
        float(torch.frexp(balanced.units[0]).mantissa) == 0.5
    )  # a power of two: it rounds nothing


@given(maps_with_direction())
def test_the_size_before_cancelling_bounds_the_norm(drawn: tuple[QuadraticMap, Tensor]) -> None:
    balanced = balance(drawn[0].form(drawn[1]).matrix)
    norm = float(balanced.dense(0).norm())
    assert norm <= float(balanced.sizes_before_cancelling[0]) * (1 + 1e-12)


@given(maps_with_direction(), SCALES, st.integers(-140, 140))
def test_neither_the_gauge_nor_the_scale_is_seen(
    drawn: tuple[QuadraticMap, Tensor], gauge: float, power: int
) -> None:
    """(α left, β right, 10^p s / αβ): the same factors, in a unit 10^p as large."""
    matrix = drawn[0].form(drawn[1]).matrix
    twin = InteractionMatrix(
        gauge * 1e150 * matrix.left, 1e-150 / gauge * matrix.right, matrix.weight * 10.0**power
    )
    here, there = balance(matrix), balance(twin)
    torch.testing.assert_close(
        there.dense(0) * (there.units[0] / 10.0**power), here.dense(0) * here.units[0]
    )


@pytest.mark.parametrize("exponent", [-150, 0, 150])
def test_a_spectrum_does_not_depend_on_how_the_sizes_are_spread(exponent: int) -> None:
    matrix = random_map().form(randn(3)).matrix
    spread = InteractionMatrix(
        matrix.left * 10.0**exponent, matrix.right * 10.0**-exponent, matrix.weight
    )
    zero = torch.zeros(5, dtype=torch.float64)
    plain, other = (eigendecompose(QuadraticForm(m, zero, zero[0])) for m in (matrix, spread))
    torch.testing.assert_close(other.eigenvalues, plain.eigenvalues)
    torch.testing.assert_close(other.rounding_bound, plain.rounding_bound)


def test_a_matrix_beyond_float64_has_an_infinite_unit() -> None:
    rows = 1e200 * torch.eye(2, dtype=torch.float64)
    assert bool(balance(InteractionMatrix(rows, rows, vector(1, 1))).units[0].isinf())


def test_a_matrix_of_zeros_has_the_unit_one() -> None:
    rows = torch.eye(2, dtype=torch.float64)
    balanced = balance(InteractionMatrix(rows, rows, vector(0, 0)))
    assert float(balanced.units[0]) == 1
    assert float(balanced.sizes_before_cancelling[0]) == 0


@pytest.mark.parametrize("branch", ["left", "right"])
def test_the_weight_of_a_neuron_without_rows_is_nothing(branch: str) -> None:
    """A dead neuron of weight 1e300 neither raises the noise of the others nor wipes them out."""
    matrix = random_map().form(randn(3)).matrix
    rows = {name: getattr(matrix, name).clone() for name in ("left", "right")}
    weight = matrix.weight.clone()
    rows[branch][1], weight[1] = 0, 1e300
    dead = balance(InteractionMatrix(rows["left"], rows["right"], weight))
    weight[1] = 0
    gone = balance(InteractionMatrix(rows["left"], rows["right"], weight))
    assert torch.equal(dead.units[0], gone.units[0])
    assert torch.equal(dead.weights[0], gone.weights[0])
    torch.testing.assert_close(
        dead.units[0] * dead.dense(0), oracles.dense_weighted(rows["left"], rows["right"], weight)
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("fill", ["largest", "smallest"])
def test_rows_are_scaled_to_lengths_from_a_half_to_one(dtype: torch.dtype, fill: str) -> None:
    """Also where the length itself is beyond the dtype, and where every entry is subnormal."""
    entry = torch.finfo(dtype).max if fill == "largest" else torch.finfo(dtype).tiny / 2**10
    rows = torch.full((3, 30), entry, dtype=dtype)
    rows[1], rows[2, ::2] = 0, -entry
    scaled, exponent = halved_rows(rows)
    lengths = scaled.double().norm(dim=1)
    assert bool(((lengths[[0, 2]] >= 0.5) & (lengths[[0, 2]] <= 1)).all())
    assert not bool(scaled[1].any())
    half = torch.div(exponent, 2, rounding_mode="floor")[:, None]
    back = torch.ldexp(torch.ldexp(scaled, half), exponent[:, None] - half)
    assert torch.equal(back, rows)


def test_forms_that_share_their_factors_are_balanced_one_by_one() -> None:
    left, right, weights = randn(4, 5), randn(4, 5), randn(3, 4)
    weights[1] *= 1e100
    weights[2] = 0
    forms = balance_all(left, right, weights)
    assert forms.d_in == 5
    for c in range(3):
        alone = balance(InteractionMatrix(left, right, weights[c]))
        assert torch.equal(forms.form_at(c).weights[0], alone.weights[0])
        assert torch.equal(forms.units[c], alone.units[0])
        assert torch.equal(forms.rows(torch.tensor([c])).form_at(0).units[0], alone.units[0])
    torch.testing.assert_close(
        forms.sizes_before_cancelling, torch.stack([forms.weights[c].abs().sum() for c in range(3)])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block_bytes", [1, 500, 64 * 2**20])
def test_products_are_those_of_the_matrices_whatever_the_block(
    dtype: torch.dtype, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilens.algebra.eigen.solver.BLOCK_BYTES", block_bytes)
    left, right = randn(9, 5).to(dtype), randn(9, 5, seed=1).to(dtype)
    forms, vectors = balance_all(left, right, randn(3, 9)), randn(3, 2, 5)
    found = forms.products(vectors)
    for c in range(3):
        dense = oracles.dense_weighted(forms.left.double(), forms.right.double(), forms.weights[c])
        torch.testing.assert_close(found[c], vectors[c] @ dense)
    assert forms.to(torch.float64).left.dtype is torch.float64
    assert forms.to(torch.float32).weights.dtype is torch.float64


def matrix(problem: Problem, index: int) -> Tensor:
    forms = problem.forms
    q = oracles.dense_weighted(forms.left.double(), forms.right.double(), forms.weights[index])
    return forms.units[index] * q


def test_each_row_is_the_form_along_its_direction() -> None:
    f, rows = random_map(), randn(4, D_OUT)
    problem = problem_of_map(f, rows)
    assert problem.forms.weights.shape == (4, D_HIDDEN)
    assert problem.forms.d_in == D_IN
    assert bool(problem.usable.all())
    for c, row in enumerate(rows):
        form, terms = f.form(row), problem.terms(c)
        torch.testing.assert_close(matrix(problem, c), form.dense())
        torch.testing.assert_close(terms.linear, form.linear)
        torch.testing.assert_close(terms.constant, form.constant)
        assert terms.basis == form.basis
        balanced = problem.forms.form_at(c)
        torch.testing.assert_close(balanced.units[0] * balanced.dense(0), form.dense())


def test_a_single_form_is_a_batch_of_one() -> None:
    form = random_map().form(randn(D_OUT))
    problem = problem_of_form(form)
    assert len(problem.forms.weights) == 1
    torch.testing.assert_close(matrix(problem, 0), form.dense())
    assert torch.equal(problem.linear[0], form.linear)


def test_terms_that_a_map_does_not_have_are_zero() -> None:
    problem = problem_of_map(QuadraticMap(random_tensor()), randn(4, D_OUT))
    assert problem.linear.shape == (4, D_IN)
    assert problem.constant.shape == (4,)
    assert not bool(problem.linear.any() or problem.constant.any())


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf, 1e308])
def test_a_row_that_cannot_be_used_is_zeros_and_leaves_the_others_alone(value: float) -> None:
    """1e308 times the factors overflows."""
    f, rows = random_map().compose_output(10 * torch.eye(D_OUT).double()), randn(3, D_OUT)
    good = problem_of_map(f, rows)
    rows[1] = value
    problem = problem_of_map(f, rows)
    assert problem.usable.tolist() == [True, False, True]
    for found, expected in (
        (problem.forms.weights, good.forms.weights),
        (problem.linear, good.linear),
        (problem.constant, good.constant),
    ):
        assert not bool(found[1].any())
        assert torch.equal(found[[0, 2]], expected[[0, 2]])


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        (torch.float64, torch.float64),
        (torch.float32, torch.float32),
        (torch.float16, torch.float32),
        (torch.bfloat16, torch.float32),
    ],
)
def test_factors_keep_their_dtype_where_a_solver_can_work_in_it(
    dtype: torch.dtype, expected: torch.dtype
) -> None:
    factor = randn(3, 4).to(dtype)
    assert widened(factor).dtype is expected
    assert torch.equal(widened(factor).double(), factor.double())  # nothing is rounded


def test_weights_are_float64_whatever_the_dtype_of_the_map() -> None:
    """A class-centred direction cancels a lot: in float16 nothing of it would be left."""
    f = random_map().to(torch.float16)
    problem = problem_of_map(f, randn(2, D_OUT))
    weights = problem.forms.weights
    assert weights.dtype is problem.linear.dtype is problem.constant.dtype is torch.float64
    exact = problem_of_map(f.to(torch.float64), randn(2, D_OUT)).forms
    torch.testing.assert_close(weights, exact.weights)


def test_without_directions_every_output_is_read_as_it_is() -> None:
    f = random_map()
    plain, along = problem_of_map(f), problem_of_map(f, torch.eye(D_OUT))
    assert torch.equal(plain.forms.weights, along.forms.weights)
    for part in ("linear", "constant", "usable"):
        assert torch.equal(getattr(plain, part), getattr(along, part))


METHODS = ["dense", "factored", "lanczos"]


@pytest.mark.parametrize("method", METHODS)
def test_equal_outputs_have_nothing_left_when_read_against_their_mean(method: str) -> None:
    row = randn(1, 40, seed=1)
    f = QuadraticMap(
        BilinearTensor(row.expand(3, -1), randn(40, 30, seed=2), randn(40, 30, seed=3))
    )
    eigs = eigendecompose_all(f, centred_directions(3), k=5, method=method)
    assert float(eigs.distinct_from_zero.abs().max()) == 0
    assert float(effective_rank(eigs.distinct_from_zero).max()) == 0


@pytest.mark.parametrize("directions", [None, torch.eye(2).double()], ids=["outputs", "along"])
@pytest.mark.parametrize("method", METHODS)
def test_a_dead_neuron_with_huge_rows_changes_nothing(
    method: str, directions: Tensor | None
) -> None:
    rows = torch.stack([vector(1, 0, 0), vector(1e180, 0, 0)])
    f = QuadraticMap(BilinearTensor(torch.stack([vector(1, 0), vector(2, 0)]), rows, rows))
    eigs = eigendecompose_all(f, directions, k=1, method=method)
    assert eigs.status == (Status.OK, Status.OK)
    torch.testing.assert_close(eigs.eigenvalues[:, 0], vector(1, 2))


@pytest.mark.parametrize("method", METHODS)
def test_a_neuron_of_tiny_weight_and_huge_rows_is_as_large_along_directions(method: str) -> None:
    """2⁻¹⁰⁵⁰ of rows of 2⁵²⁵ each: the size of its rows alone is beyond float64."""
    rows = torch.stack([vector(2.0**525, 0, 0), vector(0, 2.0**525, 0)])
    f = QuadraticMap(BilinearTensor(2.0**-1050 * torch.eye(2).double(), rows, rows))
    plain, along = (
        eigendecompose_all(f, directions, k=1, method=method)
        for directions in (None, torch.eye(2).double())
    )
    assert along.status == (Status.OK, Status.OK)
    assert torch.equal(along.eigenvalues, vector(1, 1)[:, None])
    assert torch.equal(along.rounding_bound, plain.rounding_bound)


@pytest.mark.parametrize("method", METHODS)
def test_directions_of_which_none_can_be_used_are_flagged(method: str) -> None:
    f = QuadraticMap(BilinearTensor(randn(2, 3), randn(3, 8, seed=1), randn(3, 8, seed=2)))
    eigs = eigendecompose_all(f, torch.full((2, 2), torch.nan).double(), k=1, method=method)
    assert eigs.status == (Status.NOT_FINITE, Status.NOT_FINITE)
    assert bool(eigs.eigenvalues.isnan().all())


def test_a_row_of_nan_beside_huge_ones_stops_nobody() -> None:
    directions = torch.stack([vector(1, 0), vector(torch.nan, 0), vector(0, 1)])
    rows = 1e150 * randn(4, 6, seed=1)
    f = QuadraticMap(BilinearTensor(1e-300 * randn(2, 4, seed=2), rows, rows))
    eigs = eigendecompose_all(f, directions, k=1, method="lanczos")
    assert eigs.status == (Status.OK, Status.NOT_FINITE, Status.OK)


def test_forms_of_few_neurons_are_proven_by_their_rank() -> None:
    f = QuadraticMap(BilinearTensor(torch.eye(3).double(), randn(3, 90), randn(3, 90, seed=1)))
    eigs = eigendecompose_all(f, k=4, method="lanczos")
    assert bool(eigs.complete.all())
    assert eigs.proof == (Proof.RANK,) * 3
    whole = eigendecompose_all(f, k=4, method="dense")
    assert float((eigs.eigenvalues - whole.eigenvalues).abs().max()) < 1e-9
    largest = eigendecompose_all(f, k=4, which="largest", method="lanczos")  # zeros belong to it
    assert not bool((largest.complete & (largest.eigenvalues.amin(dim=1) < -1e-9)).any())


def cancelling(size: float) -> tuple[Tensor, Tensor, Tensor]:
    """Neurons in pairs (l, r, 1) and (3l, r/3, −1 + size · noise): Q is `size` of its terms.

    The factor is no power of two, so that the terms of a pair are not rounded alike.
    """
    left, right = randn(8, 6, seed=1), randn(8, 6, seed=2)
    noise = randn(3, 8, seed=3)
    weights = torch.cat([torch.ones(3, 8).double(), size * noise - 1], dim=1)
    return torch.cat([left, 3 * left]), torch.cat([right, right / 3]), weights


def exact(left: Tensor, right: Tensor, weight: Tensor) -> Fraction:
    """‖Q‖² in rational arithmetic, of the numbers as they stand."""
    rows = [[[Fraction(x) for x in row] for row in part.tolist()] for part in (left, right)]
    scale = [Fraction(x) for x in weight.tolist()]
    d_in, hidden = left.shape[1], len(scale)
    total = Fraction(0)
    for i in range(d_in):
        for j in range(d_in):
            terms = (
                scale[h] * (rows[0][h][i] * rows[1][h][j] + rows[0][h][j] * rows[1][h][i])
                for h in range(hidden)
            )
            total += (sum(terms, Fraction(0)) / 2) ** 2
    return total


@pytest.mark.parametrize("size", [1.0, 1e-4, 1e-8, 1e-10, 1e-13, 0.0])
def test_the_bound_holds_whatever_cancels(size: float) -> None:
    forms = balance_all(*cancelling(size))
    mass, error = norms_with_error(forms)
    for index in range(3):
        true = exact(forms.left, forms.right, forms.weights[index])
        assert abs(Fraction(float(mass[index])) - true) <= Fraction(float(error[index]))


def test_a_norm_that_the_gram_matrix_cannot_tell_is_told() -> None:
    forms = balance_all(*cancelling(1e-10))
    true = torch.tensor(
        [float(exact(forms.left, forms.right, weight)) for weight in forms.weights]
    ).double()
    torch.testing.assert_close(norms_with_error(forms)[0], true, rtol=1e-4, atol=0)
    blind = squared_norms(forms.weights, forms.left, forms.right)
    assert float(((blind - true).abs() / true).min()) > 0.1  # why the second look is needed


def test_shares_of_a_form_that_cancels_are_those_of_a_dense_solver() -> None:
    left, right, weights = cancelling(1e-9)
    f = QuadraticMap(BilinearTensor(weights, left, right))
    dense = eigendecompose_all(f, k=2, method="dense")
    lanczos = eigendecompose_all(f, k=2, method="lanczos")
    torch.testing.assert_close(lanczos.explained, dense.explained, rtol=1e-4, atol=0)
    torch.testing.assert_close(
        lanczos.frobenius_squared, dense.frobenius_squared, rtol=1e-4, atol=0
    )


def test_what_the_norm_in_float32_leaves_open_the_norm_in_float64_decides() -> None:
    """λ = 1, 0.8, 0.79999: ‖Q‖² − 1 − 0.64 is below 0.64 by less than the bound in float32."""
    turn = torch.linalg.qr(randn(200, 200, seed=1)).Q.float()
    values = torch.tensor([[1.0, 0.8, 0.79999]] * 3).double()
    f = QuadraticMap(BilinearTensor(values.float(), turn[:3], turn[:3]))
    left = torch.cat([f.tensor.left] * 40)  # enough hidden units for the Gram matrix to be cheaper
    down = torch.cat([f.tensor.down / 40] * 40, dim=1)
    f = QuadraticMap(BilinearTensor(down.repeat(30, 1), left, left))
    forms = balance_all(left, left, f.tensor.down.double())
    rough, error = norms_with_error(forms, in_float32=True)
    fine, exact = norms_with_error(forms)
    assert bool((fine + error - 1 > 2 * 0.64).all())
    assert bool(((rough - fine).abs() <= error + exact).all())
    eigs = eigendecompose_all(f, k=2, method="lanczos", precision="float32")
    assert bool(eigs.complete.all())
