"""One way of writing a sum of components.

Broken once: `down * left_sign * right_sign` -> `down`; the sum changed.
"""

from __future__ import annotations

import torch
from hypothesis import given, strategies as st
from torch.testing import assert_close

import oracles
from bilens.algebra.cp.canonical import canonical, leading_signs
from bilens.algebra.cp.factors import Factors, squared_sizes
from bilens.algebra.unit_rows import unit_rows
from builders import randn


def some_factors(seed: int, rank: int = 4) -> Factors:
    left, right = randn(rank, 5, seed=3 * seed + 1), randn(rank, 5, seed=3 * seed + 2)
    return Factors(randn(3, rank, seed=3 * seed), unit_rows(left)[0], unit_rows(right)[0])


@given(st.integers(0, 1000))
def test_the_sum_is_the_same_and_its_parts_are_in_order(seed: int) -> None:
    factors = some_factors(seed)
    found = canonical(factors)
    assert_close(oracles.dense_tensor(*found), oracles.dense_tensor(*factors))
    sizes = squared_sizes(found)
    assert bool((sizes[:-1] >= sizes[1:]).all())
    for rows in (found.left, found.right):
        assert bool((rows.amax(dim=1) == rows.abs().amax(dim=1)).all())


@given(
    st.integers(0, 1000),
    st.permutations(range(4)),
    st.lists(st.booleans(), min_size=12, max_size=12),
)
def test_every_way_of_writing_a_sum_ends_in_the_same(
    seed: int, order: list[int], flips: list[bool]
) -> None:
    factors = some_factors(seed)
    left_sign, right_sign, swap = (1 - 2 * torch.tensor(flips).double()).reshape(3, 4)
    left, right = left_sign[:, None] * factors.left, right_sign[:, None] * factors.right
    swapped = (swap < 0)[:, None]
    other = Factors(
        (factors.down * left_sign * right_sign)[:, order],
        torch.where(swapped, right, left)[order],
        torch.where(swapped, left, right)[order],
    )
    for ours, theirs in zip(canonical(factors), canonical(other), strict=True):
        assert_close(theirs, ours)


def test_equal_sizes_do_not_leave_the_sign_to_rounding() -> None:
    rows = torch.tensor([[1.0, -1.0 - 1e-12], [-1.0, 1.0 + 1e-12]]).double()
    assert leading_signs(rows).tolist() == [1.0, -1.0]
