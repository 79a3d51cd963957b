"""Kruskal ranks: exact against all subsets, a proven lower bound where there are too many.

Broken once: `size - 1` -> `size` on the first dependent subset; ranks were one too large.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.cp import kruskal
from bilens.algebra.cp.kruskal import KruskalRank, coherence_bound, kruskal_rank
from bilens.algebra.unit_rows import unit_rows
from builders import randn, rotation
from strategies import entries


@st.composite
def small_rows(draw: st.DrawFn) -> Tensor:
    """Rows with small integers: dependent subsets are common and exact."""
    num, width = draw(st.integers(1, 6)), draw(st.integers(1, 4))
    return draw(entries(num, width, bound=1024.0)).div(512, rounding_mode="trunc")


@given(small_rows())
def test_it_is_the_largest_size_of_which_all_subsets_are_independent(rows: Tensor) -> None:
    assert kruskal_rank(rows) == KruskalRank(oracles.kruskal_rank(rows), exact=True)


@given(small_rows())
def test_with_too_many_subsets_it_is_a_lower_bound(rows: Tensor) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(kruskal, "MAX_SUBSETS", 3)
        found = kruskal_rank(rows)
    truth = oracles.kruskal_rank(rows)
    assert found.value == truth if found.exact else found.value <= truth


def test_more_rows_than_columns_in_general_position_have_full_kruskal_rank() -> None:
    assert kruskal_rank(randn(7, 3)) == KruskalRank(3, exact=True)


def test_independent_rows_need_no_subsets() -> None:
    assert kruskal_rank(randn(200, 300)) == KruskalRank(200, exact=True)


def test_a_parallel_pair_and_a_zero_row() -> None:
    rows = randn(4, 6)
    assert kruskal_rank(torch.cat([rows, -2 * rows[:1]])) == KruskalRank(1, exact=True)
    assert kruskal_rank(torch.cat([rows, 0 * rows[:1]])) == KruskalRank(0, exact=True)


def test_the_coherence_of_an_orthonormal_basis_and_a_flat_vector() -> None:
    """μ = 1/√16 = ¼ between e_i and the flat vector: any 4 of the 17 are independent."""
    flat = torch.full((1, 16), 0.25, dtype=torch.float64)
    rows = torch.cat([torch.eye(16, dtype=torch.float64), flat]) @ rotation(16)
    assert coherence_bound(rows) == 4
    assert coherence_bound(rotation(5)) == 5
    assert coherence_bound(unit_rows(randn(1, 3))[0]) == 1


def test_many_rows_fall_back_on_the_bound() -> None:
    """60 rows of rank 59: the 34,220 subsets of 3 are beyond the limit."""
    rows = rotation(59)
    dependent = torch.cat([rows, rows.sum(dim=0, keepdim=True)])
    found = kruskal_rank(dependent)
    assert not found.exact
    assert found.value == 8  # μ = 1/√59, and √59 = 7.7; the truth is 59
