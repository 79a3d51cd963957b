"""A matrix in a scale of its own: the same matrix, whatever the sizes of its factors.

Broken once: `exponent - largest` turned into `exponent`; the weights left their interval.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.eigen.balance import BalancedForms, balance_all, halved_rows
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from builders import randn, random_map, vector
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
        gauge * 1e150 * matrix.left,
        1e-150 / gauge * matrix.right,
        matrix.weight * 10.0**power,
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
    torch.testing.assert_close(other.noise, plain.noise)


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
        dead.units[0] * dead.dense(0),
        oracles.dense_weighted(rows["left"], rows["right"], weight),
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
        assert torch.equal(forms.one(c).weights[0], alone.weights[0])
        assert torch.equal(forms.units[c], alone.units[0])
        assert torch.equal(forms.rows(torch.tensor([c])).one(0).units[0], alone.units[0])
    torch.testing.assert_close(
        forms.sizes_before_cancelling, torch.stack([forms.weights[c].abs().sum() for c in range(3)])
    )


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("block_bytes", [1, 500, 64 * 2**20])
def test_products_are_those_of_the_matrices_whatever_the_block(
    dtype: torch.dtype, block_bytes: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("bilens.algebra.eigen.balance.BLOCK_BYTES", block_bytes)
    left, right = randn(9, 5).to(dtype), randn(9, 5, seed=1).to(dtype)
    forms, vectors = balance_all(left, right, randn(3, 9)), randn(3, 2, 5)
    found = forms.products(vectors)
    for c in range(3):
        dense = oracles.dense_weighted(forms.left.double(), forms.right.double(), forms.weights[c])
        torch.testing.assert_close(found[c], vectors[c] @ dense)
    assert forms.to(torch.float64).left.dtype is torch.float64
    assert forms.to(torch.float32).weights.dtype is torch.float64
