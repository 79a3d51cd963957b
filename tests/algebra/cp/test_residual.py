"""Norms of tensors whose terms nearly cancel.

Broken once: `slab_norm` without its symmetric part (`half.square()`); every norm of it failed.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.cp import residual
from bilens.algebra.cp.residual import accurate_norm, slab_norm, slab_products
from bilens.algebra.unit_rows import unit_rows
from bilens.base.errors import NumericalError
from builders import randn


def unit(d_out: int, d_hidden: int, d_in: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    left, _ = unit_rows(randn(d_hidden, d_in, seed=seed + 1))
    right, _ = unit_rows(randn(d_hidden, d_in, seed=seed + 2))
    return randn(d_out, d_hidden, seed=seed), left, right


@pytest.mark.parametrize("sizes", [(3, 4, 5), (6, 2, 5), (2, 2, 9), (1, 7, 1)])
def test_both_ways_give_the_norm_of_the_dense_tensor(sizes: tuple[int, int, int]) -> None:
    factors = unit(*sizes)
    expected = float(oracles.norm(oracles.dense_tensor(*factors)))
    assert slab_norm(*factors) == pytest.approx(expected)
    assert accurate_norm(*factors) == pytest.approx(expected)


def nearly_cancelling(gap: float) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """p ⊗ l rᵀ against −(1 − gap) p ⊗ r lᵀ: gap times the tensor is left."""
    down, left, right = unit(3, 4, 5)
    both = torch.cat([down, -(1 - gap) * down], dim=1)
    left_over = gap * float(oracles.norm(oracles.dense_tensor(down, left, right)))
    return (both, torch.cat([left, right]), torch.cat([right, left])), left_over


@pytest.mark.parametrize("gap", [1e-4, 1e-8, 1e-12])
def test_what_is_left_of_terms_that_cancel_is_seen(gap: float) -> None:
    """An error of eps · size ≈ 1e-15 leaves three digits of 1e-12."""
    factors, left_over = nearly_cancelling(gap)
    assert accurate_norm(*factors) == pytest.approx(left_over, rel=1e-3)


def test_terms_that_cancel_completely_have_norm_zero() -> None:
    factors, _ = nearly_cancelling(0.0)
    assert accurate_norm(*factors) == 0.0


def test_a_tensor_that_is_too_large_for_slabs_is_refused_rather_than_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(residual, "SLAB_PRODUCTS", 10)
    factors, _ = nearly_cancelling(1e-8)
    with pytest.raises(NumericalError, match=r"cancel to less than .* merge or drop hidden"):
        accurate_norm(*factors)


def test_the_number_of_products_is_that_of_the_smallest_basis() -> None:
    assert slab_products(randn(3, 4), randn(4, 5)) == 3 * 4 * 5**2
    assert slab_products(randn(9, 2), randn(2, 50)) == 2 * 2 * 4**2
