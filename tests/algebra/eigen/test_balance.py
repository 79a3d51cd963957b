"""A matrix in a scale of its own: the same matrix, whatever the sizes of its factors.

Broken once: `exponent - largest` turned into `exponent`; the weights left their interval.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from bilens.algebra.eigen.balance import balance
from bilens.algebra.eigen.eigendecompose import eigendecompose
from bilens.algebra.interaction import InteractionMatrix
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from builders import randn, random_map, vector
from strategies import SCALES, maps_with_direction


@given(maps_with_direction())
def test_it_is_the_same_matrix_in_another_unit(drawn: tuple[QuadraticMap, Tensor]) -> None:
    matrix = drawn[0].form(drawn[1]).matrix
    balanced = balance(matrix)
    torch.testing.assert_close(balanced.unit * balanced.matrix.dense(), matrix.dense())
    largest = float(balanced.matrix.weight.abs().max())
    assert largest == 0 or 1 / 8 <= largest <= 1
    assert float(torch.frexp(balanced.unit).mantissa) == 0.5  # a power of two: it rounds nothing


@given(maps_with_direction())
def test_the_size_before_cancelling_bounds_the_norm(drawn: tuple[QuadraticMap, Tensor]) -> None:
    balanced = balance(drawn[0].form(drawn[1]).matrix)
    norm = float(balanced.matrix.dense().norm())
    assert norm <= float(balanced.size_before_cancelling) * (1 + 1e-12)


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
        there.matrix.dense() * (there.unit / 10.0**power), here.matrix.dense() * here.unit
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
    assert bool(balance(InteractionMatrix(rows, rows, vector(1, 1))).unit.isinf())


def test_a_matrix_of_zeros_has_the_unit_one() -> None:
    rows = torch.eye(2, dtype=torch.float64)
    balanced = balance(InteractionMatrix(rows, rows, vector(0, 0)))
    assert float(balanced.unit) == 1
    assert float(balanced.size_before_cancelling) == 0
