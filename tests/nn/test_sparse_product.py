"""Sparse products: those of the dense code, and their gradients; the k largest of each row."""

import pytest
import torch
from torch import Tensor

from bilens.nn.topk_sae import (
    chosen_pre_activations,
    code_times,
    code_transposed_times,
    largest,
)

ROWS, K, LATENTS, WIDTH = 9, 3, 7, 5


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def code() -> tuple[Tensor, Tensor, Tensor]:
    """Values, their places, and the dense code."""
    values, indices = drawn(ROWS, LATENTS).topk(K, dim=1)
    return values, indices, torch.zeros(ROWS, LATENTS).double().scatter(1, indices, values)


def test_products_are_those_of_the_dense_code() -> None:
    values, indices, dense = code()
    matrix, x = drawn(LATENTS, WIDTH, seed=1), drawn(ROWS, WIDTH, seed=2)
    torch.testing.assert_close(code_times(values, indices, matrix), dense @ matrix)
    torch.testing.assert_close(code_transposed_times(values, indices, x, LATENTS), dense.T @ x)


def test_a_latent_that_no_row_keeps_gets_zeros() -> None:
    values, indices = torch.ones(2, 2).double(), torch.tensor([[0, 4], [4, 0]])
    product = code_transposed_times(values, indices, drawn(2, WIDTH), LATENTS)
    assert not product[[1, 2, 3, 5, 6]].any()
    torch.testing.assert_close(product[0], drawn(2, WIDTH).sum(dim=0))


def test_gradients_are_right() -> None:
    values, indices, _ = code()
    matrix = drawn(LATENTS, WIDTH, seed=1)
    assert torch.autograd.gradcheck(
        lambda v, m: code_times(v, indices, m), (values.requires_grad_(), matrix.requires_grad_())
    )
    x, encoder, bias = (
        drawn(ROWS, WIDTH, seed=2).requires_grad_(),
        drawn(LATENTS, WIDTH, seed=3).requires_grad_(),
        drawn(LATENTS, seed=4).requires_grad_(),
    )
    assert torch.autograd.gradcheck(
        lambda *given: chosen_pre_activations(*given, K)[0], (x, encoder, bias)
    )


def test_only_what_needs_a_gradient_gets_one() -> None:
    values, indices, _ = code()
    matrix = drawn(LATENTS, WIDTH, seed=1).requires_grad_()
    code_times(values, indices, matrix).sum().backward()
    assert values.grad is None
    assert matrix.grad is not None


SIZES = [(5, 2), (64, 3), (100, 7), (512, 16), (1024, 31), (1000, 30), (4096, 30), (3, 2)]


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_it_finds_the_values_of_a_full_sort(n: int, k: int) -> None:
    rows = torch.randn(40, n, generator=torch.Generator().manual_seed(n))
    values, indices = largest(rows, k)
    assert torch.equal(values, rows.sort(dim=1, descending=True).values[:, :k])
    assert torch.equal(rows.gather(1, indices), values)


@pytest.mark.parametrize(("n", "k"), SIZES)
def test_of_equals_it_takes_those_that_come_first(n: int, k: int) -> None:
    rows = torch.randint(4, (40, n), generator=torch.Generator().manual_seed(n)).float()
    expected = rows.sort(dim=1, descending=True, stable=True)
    values, indices = largest(rows, k)
    assert torch.equal(values, expected.values[:, :k])
    assert torch.equal(indices, expected.indices[:, :k])


def test_negative_rows_and_infinite_ones_are_ranked_too() -> None:
    rows = torch.tensor([[-3.0, -1.0, -2.0, -torch.inf], [-torch.inf] * 4])
    values, indices = largest(rows, 2)
    assert values.tolist() == [[-1.0, -2.0], [-torch.inf] * 2]
    assert indices.tolist() == [[1, 2], [0, 1]]
