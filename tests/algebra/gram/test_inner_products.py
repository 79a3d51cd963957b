"""Inner products of all pairs of outputs, whichever tensors they belong to."""

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gram.inner_products import input_gram, output_gram
from builders import randn
from strategies import SCALES, rotations, tensors

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


def test_along_given_directions_the_input_gram_matrix_is_the_projected_one() -> None:
    directions = randn(3, 5, seed=7)
    whole = oracles.input_gram(oracles.dense_tensor(*FIRST))
    torch.testing.assert_close(input_gram(*FIRST, directions), directions @ whole @ directions.T)


@given(tensors(), st.data(), SCALES)
def test_the_input_gram_matrix_does_not_see_how_a_tensor_is_written(
    b: BilinearTensor, data: st.DataObject, scale: float
) -> None:
    turn = data.draw(rotations(b.sizes.d_in))
    expected = input_gram(b.down, b.left, b.right)
    torch.testing.assert_close(
        input_gram(b.down / scale, b.right, b.left * scale), expected, rtol=1e-10, atol=1e-9
    )
    turned = input_gram(b.down, b.left @ turn, b.right @ turn)
    torch.testing.assert_close(turned, turn.T @ expected @ turn, rtol=1e-10, atol=1e-9)
