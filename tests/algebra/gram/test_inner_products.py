"""Inner products of all pairs of outputs, whichever tensors they belong to.

Broken once: the block of the first head with the second transposed; the two heads failed.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.gram.inner_products import output_gram
from bilens.algebra.gram.input_gram import input_gram
from builders import randn

FIRST = randn(2, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)
SECOND = randn(3, 6, seed=4), randn(6, 5, seed=5), randn(6, 5, seed=6)


def dense_gram(first: Tensor, second: Tensor) -> Tensor:
    return torch.einsum("oij,pij->op", first, second)


@pytest.mark.usefixtures("block")
def test_two_heads_on_one_pair_of_branches_are_compared_by_symmetry_too() -> None:
    down, left, right = FIRST
    other = randn(3, 4, seed=9)
    expected = dense_gram(
        oracles.dense_tensor(down, left, right), oracles.dense_tensor(other, left, right)
    )
    torch.testing.assert_close(output_gram(down, left, right, other, left, right), expected)


def test_the_gram_matrix_of_a_layer_with_itself_is_symmetric_to_the_last_bit() -> None:
    for ours in (output_gram(*SECOND, *SECOND), input_gram(*SECOND)):
        assert torch.equal(ours, ours.T)
