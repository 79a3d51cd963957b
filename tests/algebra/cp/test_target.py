"""The target of a CP fit, its factors in canonical form, and how far a model is from it."""

from dataclasses import replace

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.testing import assert_close

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp import target as module
from bilens.algebra.cp.target import (
    Factors,
    Target,
    accurate_norm,
    canonical,
    down_gram,
    fit_error,
    normal_product,
    pair_gram,
    slab_norm,
    slab_products,
    squared_sizes,
    unit_columns,
)
from bilens.algebra.gram.kernel import unit_rows
from bilens.base.errors import NonFiniteError, NumericalError
from builders import D_IN, D_OUT, randn, random_tensor

TENSOR = random_tensor(seed=1)
DENSE = oracles.dense_tensor(TENSOR.down, TENSOR.left, TENSOR.right)
UNIT = DENSE / oracles.norm(DENSE)
MODEL = Factors(randn(D_OUT, 2, seed=5), randn(2, D_IN, seed=6), randn(2, D_IN, seed=7))


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e150])
def test_the_target_is_the_tensor_scaled_to_norm_one(scale: float) -> None:
    target = Target.from_tensor(replace(TENSOR, down=scale * TENSOR.down))
    left, right = target.stacked.chunk(2)
    assert_close(oracles.dense_tensor(target.down, left, right), UNIT)
    assert target.norm / scale == pytest.approx(float(oracles.norm(DENSE)))
    assert target.size >= 1


def test_correlations_are_inner_products_with_each_output() -> None:
    target = Target.from_tensor(TENSOR)
    one = torch.eye(2, dtype=torch.float64)
    found = target.correlate(target.project(MODEL.left), target.project(MODEL.right))
    pairs = oracles.dense_tensor(one, MODEL.left, MODEL.right)
    assert_close(found, torch.einsum("cij,aij->ca", UNIT, pairs))


def test_applying_reads_each_component_along_its_own_output() -> None:
    target = Target.from_tensor(TENSOR)
    found = target.apply(target.weigh(MODEL.down), target.project(MODEL.right))
    assert_close(found, torch.einsum("ca,cij,aj->ai", MODEL.down, UNIT, MODEL.right))


def test_the_inner_product_with_a_model_is_that_of_the_dense_tensors() -> None:
    target = Target.from_tensor(TENSOR)
    left, right = target.project(MODEL.left), target.project(MODEL.right)
    found = target.inner(target.weigh(MODEL.down), left, right)
    assert found == pytest.approx(float(oracles.inner(UNIT, oracles.dense_tensor(*MODEL))))


def test_the_loss_is_the_squared_error_with_the_penalty() -> None:
    target = Target.from_tensor(TENSOR)
    correlation = target.correlate(target.project(MODEL.left), target.project(MODEL.right))
    plain = float(oracles.squared_error(UNIT, *MODEL))
    penalty = float(squared_sizes(MODEL).sum())
    assert target.loss(MODEL, correlation, 0.0) == pytest.approx(plain)
    assert target.loss(MODEL, correlation, 0.5) == pytest.approx(plain + 0.5 * penalty)
    assert target.rounding(MODEL) < 1e-12


def test_hidden_units_that_cancel_make_a_zero_target() -> None:
    """sym(l rᵀ) − sym(r lᵀ) = 0, and what rounding leaves of it is no tensor."""
    left, right = randn(3, 9, seed=1) / 3, randn(3, 9, seed=2) / 7
    weight = randn(2, 3, seed=3)
    tensor = BilinearTensor(
        torch.cat([weight, -weight], dim=1), torch.cat([left, right]), torch.cat([right, left])
    )
    assert Target.from_tensor(tensor).norm == 0


def test_factors_whose_product_overflows_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="the product of the factors holds"):
        Target.from_tensor(replace(TENSOR, left=1e200 * TENSOR.left, right=1e200 * TENSOR.right))


def unit(d_out: int, d_hidden: int, d_in: int, seed: int = 0) -> tuple[Tensor, Tensor, Tensor]:
    left, _ = unit_rows(randn(d_hidden, d_in, seed=seed + 1))
    right, _ = unit_rows(randn(d_hidden, d_in, seed=seed + 2))
    return randn(d_out, d_hidden, seed=seed), left, right


@pytest.mark.parametrize("sizes", [(3, 4, 5), (6, 2, 5), (2, 2, 9), (1, 7, 1)])
def test_both_ways_give_the_norm_of_the_dense_tensor(sizes: tuple[int, int, int]) -> None:
    factors = unit(*sizes)
    expected = float(oracles.norm(oracles.dense_tensor(*factors)))
    assert slab_norm(*factors) == pytest.approx(expected)
    assert accurate_norm(*factors) == pytest.approx(expected)


def nearly_cancelling(gap: float) -> tuple[tuple[Tensor, Tensor, Tensor], float]:
    """p ⊗ l rᵀ against −(1 − gap) p ⊗ r lᵀ: gap times the tensor is left."""
    down, left, right = unit(3, 4, 5)
    both = torch.cat([down, -(1 - gap) * down], dim=1)
    left_over = gap * float(oracles.norm(oracles.dense_tensor(down, left, right)))
    return (both, torch.cat([left, right]), torch.cat([right, left])), left_over


@pytest.mark.parametrize("gap", [1e-4, 1e-8, 1e-12])
def test_what_is_left_of_terms_that_cancel_is_seen(gap: float) -> None:
    """An error of eps · size ≈ 1e-15 leaves three digits of 1e-12."""
    factors, left_over = nearly_cancelling(gap)
    assert accurate_norm(*factors) == pytest.approx(left_over, rel=1e-3)


def test_terms_that_cancel_completely_have_norm_zero() -> None:
    factors, _ = nearly_cancelling(0.0)
    assert accurate_norm(*factors) == 0.0


def test_a_tensor_that_is_too_large_for_slabs_is_refused_rather_than_guessed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(module, "SLAB_PRODUCTS", 10)
    factors, _ = nearly_cancelling(1e-8)
    with pytest.raises(NumericalError, match=r"cancel to less than .* merge or drop hidden"):
        accurate_norm(*factors)


def test_the_number_of_products_is_that_of_the_smallest_basis() -> None:
    assert slab_products(randn(3, 4), randn(4, 5)) == 3 * 4 * 5**2
    assert slab_products(randn(9, 2), randn(2, 50)) == 2 * 2 * 4**2


TARGET = Target.from_tensor(random_tensor(seed=1))
LEFT, RIGHT = TARGET.stacked.chunk(2)
OWN = Factors(TARGET.down, LEFT, RIGHT)


def test_the_error_is_that_of_the_dense_tensors() -> None:
    model = Factors(randn(D_OUT, 2, seed=5), randn(2, D_IN, seed=6), randn(2, D_IN, seed=7))
    expected = float(oracles.squared_error(oracles.dense_tensor(*OWN), *model)) ** 0.5
    found = fit_error(TARGET, model)
    assert found.relative_error == pytest.approx(expected)
    assert found.resolution < 1e-12


@pytest.mark.parametrize("gap", [1e-3, 1e-6, 1e-9, 1e-12])
def test_an_error_of_any_size_is_seen(gap: float) -> None:
    """(1 − gap) B is gap · ‖B‖ from B; Gram matrices alone stop at √eps ≈ 1e-8."""
    found = fit_error(TARGET, OWN._replace(down=(1 - gap) * OWN.down))
    assert found.relative_error == pytest.approx(gap, abs=2 * found.resolution)
    assert found.resolution < 1e-13 + 1e-3 * gap


def test_what_would_take_too_long_has_its_resolution_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "SLAB_PRODUCTS", 10)
    found = fit_error(TARGET, OWN._replace(down=(1 - 1e-12) * OWN.down))
    assert found.resolution > 1e-9
    assert abs(found.relative_error - 1e-12) <= found.resolution


DOWNS, LEFTS, RIGHTS = randn(3, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)


def test_inner_products_of_pairs_are_those_of_their_symmetric_matrices() -> None:
    left, right = randn(2, 5, seed=4), randn(2, 5, seed=5)
    first = oracles.dense_tensor(torch.eye(4, dtype=torch.float64), LEFTS, RIGHTS)
    second = oracles.dense_tensor(torch.eye(2, dtype=torch.float64), left, right)
    assert_close(pair_gram(LEFTS, RIGHTS, left, right), torch.einsum("aij,bij->ab", first, second))


def test_the_ridge_is_a_penalty_on_the_sizes_of_components() -> None:
    inputs = pair_gram(LEFTS, RIGHTS, LEFTS, RIGHTS)
    with_ridge = (down_gram(DOWNS, 0.25) * inputs).sum()
    plain = oracles.norm(oracles.dense_tensor(DOWNS, LEFTS, RIGHTS)) ** 2
    sizes = squared_sizes(Factors(DOWNS, LEFTS, RIGHTS))
    assert_close(with_ridge, plain + 0.25 * sizes.sum())


def test_squared_sizes_are_the_squared_norms_of_single_components() -> None:
    single = [
        oracles.norm(oracles.dense_tensor(DOWNS[:, a : a + 1], LEFTS[a : a + 1], RIGHTS[a : a + 1]))
        for a in range(4)
    ]
    assert_close(squared_sizes(Factors(DOWNS, LEFTS, RIGHTS)), torch.stack(single) ** 2)


def test_the_normal_product_is_the_gradient_of_the_squared_norm() -> None:
    left = LEFTS.clone().requires_grad_()
    norm = oracles.inner(*[oracles.dense_tensor(DOWNS, left, RIGHTS)] * 2)
    (expected,) = torch.autograd.grad(norm, left)
    assert_close(normal_product(DOWNS.T @ DOWNS, RIGHTS, LEFTS), expected)


def test_columns_are_scaled_to_one_and_a_zero_column_stays() -> None:
    down = torch.cat([DOWNS, DOWNS.new_zeros(3, 1)], dim=1)
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
