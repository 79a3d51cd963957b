"""Gram matrices of slices along either mode: both routes equal the definition.

Broken once: the `2**0.5` of the entries right of the diagonal lost; `dense_gram` of the outputs
failed.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.modes import Factors, InputMode, OutputMode
from bilens.base.errors import NonFiniteError
from builders import D_IN, D_OUT, randn, random_tensor
from strategies import entries, tensors


def factors_of(tensor: BilinearTensor) -> Factors:
    return Factors.of(tensor.down, tensor.left, tensor.right)


def slices(tensor: BilinearTensor, axis: int, rows: Tensor) -> Tensor:
    """Σ_i rows[k, i] · (slice i along the axis), flattened, (num, rest)."""
    dense = oracles.dense_tensor(tensor.down, tensor.left, tensor.right)
    return rows @ dense.movedim(axis, 0).flatten(1)


@given(tensors(), st.data())
def test_both_routes_give_the_inner_products_of_the_slices(
    tensor: BilinearTensor, data: st.DataObject
) -> None:
    factors = factors_of(tensor)
    for axis, mode in ((0, OutputMode(factors)), (1, InputMode(factors))):
        rows = data.draw(entries(data.draw(st.integers(1, 3)), mode.size))
        found = slices(tensor, axis, rows)
        for gram in (mode.gram(rows), mode.dense_gram(rows)):
            torch.testing.assert_close(
                gram * factors.unit**2, found @ found.T, rtol=1e-10, atol=1e-9
            )


def test_without_directions_the_slices_are_those_along_the_axis() -> None:
    factors = factors_of(random_tensor())
    for mode in (OutputMode(factors), InputMode(factors)):
        rows = torch.eye(mode.size, dtype=torch.float64)
        torch.testing.assert_close(mode.gram(None), mode.gram(rows))
        torch.testing.assert_close(mode.dense_gram(None), mode.dense_gram(rows))
        assert mode.gram_rounding(None) == pytest.approx(mode.gram_rounding(rows))


def test_modes_know_their_sizes() -> None:
    factors = factors_of(random_tensor())
    assert (OutputMode(factors).size, InputMode(factors).size) == (D_OUT, D_IN)


def test_the_rounding_of_a_gram_matrix_falls_with_the_square_of_its_rows() -> None:
    factors = factors_of(random_tensor())
    for mode in (OutputMode(factors), InputMode(factors)):
        rows = randn(2, mode.size, seed=3)
        assert mode.gram_rounding(rows / 10) == pytest.approx(mode.gram_rounding(rows) / 100)


def test_rounding_is_the_formula_of_its_docstring() -> None:
    """One unit 3·(e₁ e₂ᵀ): down = 1 after balancing; u = 1, and v = e₁ reaches left only."""
    eps = torch.finfo(torch.float64).eps
    axis = torch.eye(2, dtype=torch.float64)
    factors = Factors.of(3 * axis[:1, :1], axis[:1], axis[1:])
    assert factors.unit == 3.0
    one = torch.ones(1, 1, dtype=torch.float64)
    assert OutputMode(factors).gram_rounding(one) == pytest.approx(eps)
    assert InputMode(factors).gram_rounding(axis[:1]) == pytest.approx(eps / 2)
    assert OutputMode(factors).slice_rounding == InputMode(factors).slice_rounding == eps


def test_balanced_factors_are_the_same_tensor_with_unit_rows() -> None:
    tensor = random_tensor()
    factors = factors_of(tensor)
    torch.testing.assert_close(
        factors.unit * oracles.dense_tensor(factors.down, factors.left, factors.right),
        oracles.dense_tensor(tensor.down, tensor.left, tensor.right),
    )
    torch.testing.assert_close(factors.left.norm(dim=1), torch.ones(4, dtype=torch.float64))
    assert float(factors.down.abs().max()) == 1.0


def test_a_tensor_of_zeros_has_the_unit_one() -> None:
    tensor = random_tensor()
    assert Factors.of(0 * tensor.down, tensor.left, tensor.right).unit == 1.0


def test_products_of_lengths_that_overflow_are_refused() -> None:
    tensor = random_tensor()
    with pytest.raises(NonFiniteError, match="down times the lengths of the rows"):
        Factors.of(tensor.down, tensor.left * 1e200, tensor.right * 1e200)
