"""The record of a CP decomposition, and what is proven about its components."""

import math
from dataclasses import FrozenInstanceError
from functools import cache

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.testing import assert_close

import oracles
from bilens.algebra.cp import cp_decomposition
from bilens.algebra.cp.cp_decomposition import (
    CPDecomposition,
    KruskalRank,
    check_uniqueness,
    kruskal_rank,
)
from bilens.algebra.cp.cp_fit import cp_decompose
from bilens.algebra.cp.target import Factors
from builders import D_IN, randn, random_map, rotation, vector
from planted import dense_of
from strategies import entries

MAP = random_map(1, d_hidden=6)


@cache
def cp() -> CPDecomposition:
    """Of three components."""
    return cp_decompose(MAP, 3)


def test_the_map_is_the_sum_of_the_components_with_the_affine_terms() -> None:
    x = randn(4, D_IN, seed=8)
    products = (x @ cp().left.T) * (x @ cp().right.T)
    expected = products @ cp().down.T + x @ MAP.linear.T + MAP.constant
    assert_close(cp().quadratic_map()(x), expected)


def test_sizes_are_the_norms_of_components_and_fall() -> None:
    single = [
        oracles.norm(
            oracles.dense_tensor(
                cp().down[:, a : a + 1], cp().left[a : a + 1], cp().right[a : a + 1]
            )
        )
        for a in range(cp().rank)
    ]
    assert_close(cp().sizes, torch.stack(single))
    assert cp().sizes.tolist() == sorted(cp().sizes.tolist(), reverse=True)
    share = float(cp().sizes.square().sum() / oracles.norm(dense_of(MAP)) ** 2)
    assert cp().cancellation == pytest.approx(share)


def test_the_eigenpairs_of_a_pair_rebuild_its_matrix() -> None:
    values, vectors = cp().eigenpairs()
    one = torch.eye(cp().rank, dtype=torch.float64)
    assert_close(
        torch.einsum("ak,aki,akj->aij", values, vectors, vectors),
        oracles.dense_tensor(one, cp().left, cp().right),
    )
    overlap = (cp().left * cp().right).sum(dim=1)
    assert_close(values, torch.stack([overlap + 1, overlap - 1], dim=1) / 2)
    assert_close(vectors.norm(dim=2), torch.ones_like(values))


def test_a_square_has_one_eigenvector_and_a_zero() -> None:
    found = cp_decompose(MAP, 2, model="symmetric")
    assert found.right is found.left or torch.equal(found.right, found.left)
    values, vectors = found.eigenpairs()
    assert_close(values, values.new_tensor([[1.0, 0.0]]).expand(2, 2))
    assert_close(vectors[:, 0], found.left)
    assert not bool(vectors[:, 1].any())


def test_what_is_said_of_the_best_start_is_said_of_the_whole() -> None:
    best = cp().starts[cp().best]
    assert (cp().converged, cp().sweeps, cp().degenerate) == (
        best.converged,
        best.sweeps,
        best.degenerate,
    )
    assert cp().fit == pytest.approx(best.fit)
    assert cp().unique is cp().uniqueness.unique


def test_a_record_cannot_be_changed() -> None:
    with pytest.raises(FrozenInstanceError):
        cp().fit = 1.0


def factors(rank: int, d_out: int, d_in: int, symmetric: bool = False, seed: int = 0) -> Factors:
    left, right = randn(rank, d_in, seed=seed + 1), randn(rank, d_in, seed=seed + 2)
    return Factors(randn(d_out, rank, seed=seed), left, left if symmetric else right)


def test_pairs_with_independent_rows_are_unique() -> None:
    found = check_uniqueness(factors(3, 4, 7), "pairs")
    assert found.unique is True
    assert (found.down.value, found.left.value, found.right.value) == (3, 3, 3)
    assert found.kruskal is True


def test_more_pairs_than_half_the_inputs_are_not_proven_though_kruskal_holds() -> None:
    """The condition of Kruskal is about ordered products, which the function does not fix."""
    found = check_uniqueness(factors(3, 4, 5), "pairs")
    assert found.kruskal is True
    assert found.unique is None
    assert "dependent" in found.reason


def test_squares_are_unique_by_kruskal() -> None:
    found = check_uniqueness(factors(5, 5, 4, symmetric=True), "symmetric")
    assert (found.down.value, found.left.value) == (5, 4)  # 5 + 2·4 ≥ 2·5 + 2
    assert found.unique is True
    found = check_uniqueness(factors(5, 3, 4, symmetric=True), "symmetric")
    assert found.unique is None  # 3 + 8 < 12
    assert found.kruskal is False


def test_parallel_outputs_disprove_and_here_is_another_sum() -> None:
    """p ⊗ (v vᵀ + w wᵀ) is the same for every rotation of v and w."""
    rows = randn(2, 4, seed=3)
    down = vector(1.0, 2.0)[:, None].expand(2, 2)
    cos, sin = math.cos(0.3), math.sin(0.3)
    turned = torch.tensor([[cos, sin], [-sin, cos]], dtype=torch.float64) @ rows
    assert_close(oracles.dense_tensor(down, turned, turned), oracles.dense_tensor(down, rows, rows))
    for model in ("symmetric", "pairs"):
        assert check_uniqueness(Factors(down, rows, rows), model).unique is False


def test_nearly_parallel_outputs_of_many_components_disprove_nothing() -> None:
    """202 columns in a plane have too many pairs to try; a lower bound of 1 says nothing."""
    angles = torch.linspace(0, 3, 201).double()
    angles = torch.cat([angles, angles[-1:] + 1e-6])
    down = torch.stack([angles.cos(), angles.sin()])
    found = check_uniqueness(Factors(down, randn(202, 3), randn(202, 3, seed=1)), "pairs")
    assert found.down == KruskalRank(1, exact=False)
    assert found.unique is None
    assert "parallel is not shown" in found.reason


def test_one_component_is_unique_and_a_zero_one_never() -> None:
    one = factors(1, 2, 3)
    assert check_uniqueness(one, "pairs").unique is True
    nothing = Factors(torch.zeros_like(one.down), one.left, one.right)
    assert check_uniqueness(nothing, "pairs").unique is False
    assert check_uniqueness(Factors(one.down, one.left, 0 * one.right), "pairs").unique is False


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
        patch.setattr(cp_decomposition, "MAX_SUBSETS", 3)
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


def test_many_rows_fall_back_on_the_bound() -> None:
    """60 rows of rank 59: the 34,220 subsets of 3 are beyond the limit."""
    rows = rotation(59)
    dependent = torch.cat([rows, rows.sum(dim=0, keepdim=True)])
    found = kruskal_rank(dependent)
    assert not found.exact
    assert found.value == 8  # μ = 1/√59, and √59 = 7.7; the truth is 59
