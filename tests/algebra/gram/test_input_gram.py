"""The Gram matrix along the inputs, along all of them and along given directions.

Broken once: the halving of diagonal blocks lost (8 → 4); everything failed.
"""

from __future__ import annotations

import torch
from hypothesis import given, strategies as st

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gram.input_gram import input_gram
from builders import randn
from strategies import SCALES, rotations, tensors

FIRST = randn(2, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)


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
