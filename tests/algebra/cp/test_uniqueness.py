"""What is proven about components: unique, not unique, or unknown.

Broken once: the test of independent left and right rows dropped; a sum with a second way of writing
it was called unique.
"""

from __future__ import annotations

import math

import torch
from torch.testing import assert_close

import oracles
from bilens.algebra.cp.factors import Factors
from bilens.algebra.cp.uniqueness import check_uniqueness
from builders import randn, vector


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


def test_one_component_is_unique_and_a_zero_one_never() -> None:
    one = factors(1, 2, 3)
    assert check_uniqueness(one, "pairs").unique is True
    nothing = Factors(torch.zeros_like(one.down), one.left, one.right)
    assert check_uniqueness(nothing, "pairs").unique is False
    assert check_uniqueness(Factors(one.down, one.left, 0 * one.right), "pairs").unique is False
