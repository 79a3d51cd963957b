"""The least-squares update of one input factor.

Broken once: `normal_product` with its arguments `right` and `solution` swapped in the residual;
the answer was no longer the least-squares one.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.testing import assert_close

import oracles
from bilens.algebra.cp import conjugate_gradient
from bilens.algebra.cp.conjugate_gradient import solve
from bilens.algebra.unit_rows import unit_rows
from builders import D_IN, D_OUT, randn, random_tensor


def problem(seed: int, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A dense tensor, p, r, the right-hand side 2T, and a start."""
    tensor = random_tensor(seed, d_hidden=6)
    dense = oracles.dense_tensor(tensor.down, tensor.left, tensor.right)
    down = randn(D_OUT, rank, seed=seed + 50)
    right, _ = unit_rows(randn(rank, D_IN, seed=seed + 60))
    rhs = 2 * torch.einsum("ca,cij,aj->ai", down, dense, right)
    return dense, down, right, rhs, randn(rank, D_IN, seed=seed + 70)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_solved_to_the_end_it_is_the_dense_least_squares_answer(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(conjugate_gradient, "REDUCTION", 1e-13)
    for seed in range(4):
        dense, down, right, rhs, start = problem(seed, rank)
        found = solve(down.T @ down, right, rhs, start)
        assert_close(found, oracles.best_left(dense, down, right), rtol=1e-6, atol=1e-6)


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 4))
def test_stopped_at_any_step_it_has_lowered_the_error(seed: int, rank: int, steps: int) -> None:
    dense, down, right, rhs, start = problem(seed, rank)
    gram = down.T @ down + 1e-10 * torch.eye(rank, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(conjugate_gradient, "MAX_STEPS", steps)
        found = solve(gram, right, rhs, start)
    before = float(oracles.squared_error(dense, down, start, right))
    assert float(oracles.squared_error(dense, down, found, right)) < before


def test_a_start_that_is_the_answer_stays() -> None:
    _, down, right, _, left = problem(0, 2)
    own = oracles.dense_tensor(down, left, right)
    rhs = 2 * torch.einsum("ca,cij,aj->ai", down, own, right)
    assert_close(solve(down.T @ down, right, rhs, left), left)
