"""The kernel of the hidden units, block by block: every block once, half of them by symmetry."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

import oracles
from bilens.algebra.gram.inner_products import (
    input_gram,
    output_gram,
    outputs_traces,
    paired_inner,
    squared_norms,
)
from builders import randn
from odd_tensors import LOW_PRECISION

FIRST = randn(2, 4, seed=1), randn(4, 5, seed=2), randn(4, 5, seed=3)
SECOND = randn(3, 6, seed=4), randn(6, 5, seed=5), randn(6, 5, seed=6)


def dense_gram(first: Tensor, second: Tensor) -> Tensor:
    return torch.einsum("oij,pij->op", first, second)


@pytest.mark.usefixtures("block")
def test_the_size_of_the_blocks_changes_nothing() -> None:
    first, second = oracles.dense_tensor(*FIRST), oracles.dense_tensor(*SECOND)
    torch.testing.assert_close(output_gram(*FIRST, *SECOND), dense_gram(first, second))
    torch.testing.assert_close(output_gram(*FIRST, *FIRST), dense_gram(first, first))
    torch.testing.assert_close(input_gram(*FIRST), oracles.input_gram(first))
    torch.testing.assert_close(squared_norms(*SECOND), dense_gram(second, second).diagonal())
    torch.testing.assert_close(
        paired_inner(SECOND[0][:2], *SECOND[1:], *FIRST), dense_gram(second[:2], first).diagonal()
    )
    torch.testing.assert_close(outputs_traces(*SECOND), oracles.traces(second))


@pytest.mark.usefixtures("block")
def test_gradients_do_not_see_the_blocks() -> None:
    factors = [part.clone().requires_grad_() for part in FIRST]
    dense = oracles.dense_tensor(*factors)
    for ours, theirs in (
        (output_gram(*factors, *factors), dense_gram(dense, dense)),
        (squared_norms(*factors), dense_gram(dense, dense).diagonal()),
        (input_gram(*factors), oracles.input_gram(dense)),
    ):
        found = torch.autograd.grad(ours.sin().sum(), factors, retain_graph=True)
        expected = torch.autograd.grad(theirs.sin().sum(), factors, retain_graph=True)
        torch.testing.assert_close(found, expected)


def flops_of(call: Callable[[], object]) -> int:
    """Operations of the matrix products of a call."""
    from torch.utils.flop_counter import FlopCounterMode

    with FlopCounterMode(display=False) as counter:
        call()
    return counter.get_total_flops()


def test_symmetry_saves_close_to_half_of_the_work() -> None:
    """8 · in · hidden² operations between two layers.

    With itself, of 64 blocks of 4 products each: 28 above the diagonal, 8 of 3 products on it.
    """
    left, right, down = randn(160, 50, seed=1), randn(160, 50, seed=2), randn(1, 160)
    whole = flops_of(lambda: output_gram(down, left, right, down, left.clone(), right))
    half = flops_of(lambda: output_gram(down, left, right, down, left, right))
    assert whole == pytest.approx(8 * 50 * 160**2, rel=0.05)
    assert half == pytest.approx((28 * 4 + 8 * 3) / (64 * 4) * whole, rel=0.02)
    assert flops_of(lambda: squared_norms(down, left, right)) == pytest.approx(half, rel=0.02)


@pytest.mark.parametrize("dtype", LOW_PRECISION)
def test_low_precision_factors_give_float64_and_are_read_exactly(dtype: torch.dtype) -> None:
    low = tuple(part.to(dtype) for part in FIRST)
    exact = tuple(part.double() for part in low)
    torch.testing.assert_close(squared_norms(*low), squared_norms(*exact), rtol=0, atol=0)
    torch.testing.assert_close(input_gram(*low), input_gram(*exact), rtol=0, atol=0)
    torch.testing.assert_close(output_gram(*low, *low), output_gram(*exact, *exact), rtol=0, atol=0)
    torch.testing.assert_close(outputs_traces(*low), outputs_traces(*exact), rtol=0, atol=0)
