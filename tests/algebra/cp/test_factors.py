"""Inner products of components and their gradients, against the dense definition.

Broken once: the second term of `normal_product` dropped; the gradient failed.
"""

from __future__ import annotations

import torch
from torch.testing import assert_close

import oracles
from bilens.algebra.cp.factors import (
    Factors,
    down_gram,
    normal_product,
    pair_gram,
    squared_sizes,
    unit_columns,
)
from builders import randn

DOWN, LEFT, RIGHT = randn(3, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)


def test_inner_products_of_pairs_are_those_of_their_symmetric_matrices() -> None:
    left, right = randn(2, 5, seed=4), randn(2, 5, seed=5)
    first = oracles.dense_tensor(torch.eye(4, dtype=torch.float64), LEFT, RIGHT)
    second = oracles.dense_tensor(torch.eye(2, dtype=torch.float64), left, right)
    assert_close(pair_gram(LEFT, RIGHT, left, right), torch.einsum("aij,bij->ab", first, second))


def test_the_ridge_is_a_penalty_on_the_sizes_of_components() -> None:
    inputs = pair_gram(LEFT, RIGHT, LEFT, RIGHT)
    with_ridge = (down_gram(DOWN, 0.25) * inputs).sum()
    plain = oracles.norm(oracles.dense_tensor(DOWN, LEFT, RIGHT)) ** 2
    sizes = squared_sizes(Factors(DOWN, LEFT, RIGHT))
    assert_close(with_ridge, plain + 0.25 * sizes.sum())


def test_squared_sizes_are_the_squared_norms_of_single_components() -> None:
    single = [
        oracles.norm(oracles.dense_tensor(DOWN[:, a : a + 1], LEFT[a : a + 1], RIGHT[a : a + 1]))
        for a in range(4)
    ]
    assert_close(squared_sizes(Factors(DOWN, LEFT, RIGHT)), torch.stack(single) ** 2)


def test_the_normal_product_is_the_gradient_of_the_squared_norm() -> None:
    left = LEFT.clone().requires_grad_()
    norm = oracles.inner(*[oracles.dense_tensor(DOWN, left, RIGHT)] * 2)
    (expected,) = torch.autograd.grad(norm, left)
    assert_close(normal_product(DOWN.T @ DOWN, RIGHT, LEFT), expected)


def test_columns_are_scaled_to_one_and_a_zero_column_stays() -> None:
    down = torch.cat([DOWN, DOWN.new_zeros(3, 1)], dim=1)
    unit, lengths = unit_columns(down)
    assert_close(unit * lengths, down)
    assert_close(unit.norm(dim=0), down.new_tensor([1, 1, 1, 1, 0]))
