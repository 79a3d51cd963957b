"""Inner products from factors, block by block.

Broken once: `down[:, rows]` -> `down[:, : len(left[rows])]`; the blocks after the first failed.
"""

from __future__ import annotations

import pytest
import torch

import oracles
from bilens.algebra import gram
from bilens.algebra.gram import no_negative, output_gram, outputs_traces
from builders import randn


@pytest.mark.parametrize("block", [1, 2, 3, 4, 100])
def test_the_size_of_the_blocks_changes_nothing(
    block: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gram, "BLOCK", block)
    first = randn(2, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)
    second = randn(3, 6, seed=4), randn(6, 5, seed=5), randn(6, 5, seed=6)
    expected = torch.einsum(
        "oij,pij->op", oracles.dense_tensor(*first), oracles.dense_tensor(*second)
    )
    torch.testing.assert_close(output_gram(*first, *second), expected)


def test_traces_and_gram_of_float16_factors_are_float64() -> None:
    down, left, right = randn(2, 4).half(), randn(4, 5).half(), randn(4, 5).half()
    assert output_gram(down, left, right, down, left, right).dtype is torch.float64
    expected = oracles.traces(oracles.dense_tensor(down.double(), left.double(), right.double()))
    torch.testing.assert_close(outputs_traces(down, left, right), expected)


def test_a_rounding_error_below_zero_becomes_zero() -> None:
    values = torch.tensor([-1e-17, 0.0, 2.0], dtype=torch.float64)
    assert no_negative(values).tolist() == [0.0, 0.0, 2.0]
