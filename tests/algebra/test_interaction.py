"""The interaction matrix: symmetric by construction, and equal to its dense twin.

Broken once: `right @ self.left` dropped from `matvec`; the product was no longer symmetric.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.interaction import InteractionMatrix
from bilens.base.errors import MemoryLimitError, ShapeError
from builders import D_HIDDEN, D_IN, randn
from odd_tensors import LOW_PRECISION, REFUSED, SOUND, Odd

SLOTS = ("left", "right", "weight")
VECTORS = randn(2, 3, D_IN, seed=9)


def make(seed: int = 0, d_hidden: int = D_HIDDEN, d_in: int = D_IN) -> InteractionMatrix:
    return InteractionMatrix(
        randn(d_hidden, d_in, seed=3 * seed),
        randn(d_hidden, d_in, seed=3 * seed + 1),
        randn(d_hidden, seed=3 * seed + 2),
    )


def dense(matrix: InteractionMatrix) -> Tensor:
    return oracles.dense_weighted(matrix.left, matrix.right, matrix.weight)


OTHER = make(seed=5, d_hidden=7)
CONTRACT: dict[str, tuple[Callable[[InteractionMatrix], Tensor], Callable[[Tensor], Tensor]]] = {
    "dense": (lambda m: m.dense(), lambda q: q),
    "matvec": (lambda m: m.matvec(VECTORS), lambda q: VECTORS @ q.T),
    "evaluate": (
        lambda m: m.evaluate(VECTORS),
        lambda q: oracles.evaluate_form(q, torch.zeros_like(q[0]), q.new_zeros(()), VECTORS),
    ),
    "trace": (lambda m: m.trace(), lambda q: oracles.traces(q[None])[0]),
    "squared norm": (lambda m: m.squared_norm(), lambda q: oracles.norm(q) ** 2),
    "inner": (lambda m: m.inner(OTHER), lambda q: oracles.inner(q, dense(OTHER))),
}


@pytest.mark.parametrize("d_hidden", [1, 4, 9])
@pytest.mark.parametrize("name", CONTRACT)
def test_what_is_read_from_factors_equals_the_dense_definition(name: str, d_hidden: int) -> None:
    factored, from_dense = CONTRACT[name]
    matrix = make(d_hidden=d_hidden)
    torch.testing.assert_close(factored(matrix), from_dense(dense(matrix)))


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("name", CONTRACT)
def test_gradients_equal_those_of_the_dense_definition(name: str, slot: str) -> None:
    factored, from_dense = CONTRACT[name]
    factor = getattr(make(), slot).clone().requires_grad_()
    matrix = replace(make(), **{slot: factor})
    (ours,) = torch.autograd.grad(factored(matrix).sin().sum(), factor)
    (theirs,) = torch.autograd.grad(from_dense(dense(matrix)).sin().sum(), factor)
    torch.testing.assert_close(ours, theirs)


def test_the_matrix_is_symmetric_to_the_last_bit() -> None:
    q = make().dense()
    assert torch.equal(q, q.T)


def test_a_matrix_knows_its_sizes() -> None:
    matrix = make()
    assert (matrix.d_in, matrix.d_hidden) == (D_IN, D_HIDDEN)


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", REFUSED, ids=str)
def test_an_odd_factor_is_refused_by_its_name(odd: Odd, slot: str) -> None:
    with pytest.raises(odd.error, match=odd.message) as caught:
        replace(make(), **{slot: odd.of(getattr(make(), slot))})
    assert str(caught.value).startswith(f"{slot} ")


@pytest.mark.parametrize("slot", SLOTS)
@pytest.mark.parametrize("odd", SOUND, ids=str)
def test_an_unusual_factor_changes_nothing(odd: Odd, slot: str) -> None:
    same = replace(make(), **{slot: odd.of(getattr(make(), slot))})
    torch.testing.assert_close(same.dense(), make().dense())


@pytest.mark.parametrize(
    ("left", "right", "weight"),
    [
        ((4, 5), (4, 6), (4,)),
        ((4, 5), (3, 5), (4,)),
        ((4, 5), (4, 5), (5,)),
        ((0, 5), (0, 5), (0,)),
        ((4, 0), (4, 0), (4,)),
    ],
)
def test_factors_that_do_not_fit_are_refused_with_their_shapes(
    left: tuple[int, int], right: tuple[int, int], weight: tuple[int]
) -> None:
    with pytest.raises(ShapeError, match=r"do not fit: expected \(hidden, in\) twice") as caught:
        InteractionMatrix(randn(*left), randn(*right), randn(*weight))
    assert all(str(shape) in str(caught.value) for shape in (left, right, weight))


@pytest.mark.parametrize("slot", ["left", "right"])
def test_mixed_dtypes_are_refused(slot: str) -> None:
    with pytest.raises(ShapeError, match=rf"{slot} has dtype torch.float32.*torch.float64 .*use"):
        replace(make(), **{slot: getattr(make(), slot).float()})


def test_an_inner_product_needs_the_same_width() -> None:
    with pytest.raises(ShapeError, match="the forms read 5 and 6 inputs"):
        make().inner(make(d_in=6))


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_a_matrix_can_be_read_in_another_dtype(dtype: torch.dtype) -> None:
    matrix = make().to(dtype)
    assert {matrix.left.dtype, matrix.right.dtype, matrix.weight.dtype} == {dtype}
    assert matrix.trace().dtype is torch.float64


def test_a_detached_matrix_is_cut_from_the_graph() -> None:
    matrix = replace(make(), left=make().left.requires_grad_())
    assert matrix.dense().requires_grad
    assert not matrix.detach().dense().requires_grad


def test_a_dense_matrix_beyond_the_limit_is_refused_with_the_factored_way(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """3 arrays of 5 · 5 float64 are 600 bytes."""
    monkeypatch.setenv("BILENS_MEMORY_LIMIT", "599")
    with pytest.raises(MemoryLimitError, match=r"dense \(5, 5\) interaction matrix .*use matvec"):
        make().dense()
    assert make().matvec(VECTORS).shape == VECTORS.shape
