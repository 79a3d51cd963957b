"""Inner products of components, and their canonical form."""

import torch
from hypothesis import given, strategies as st
from torch.testing import assert_close

import oracles
from bilens.algebra.cp.target import (
    Factors,
    canonical,
    down_gram,
    leading_signs,
    normal_product,
    pair_gram,
    squared_sizes,
    unit_columns,
)
from bilens.algebra.gram.kernel import unit_rows
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
