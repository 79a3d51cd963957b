"""Products with codes of k non-zero entries a row, forwards and backwards, without a dense code.

A code Z (rows × num_latents) is two tensors (rows, k), its values and where they stand. Both
directions of training need only Z·D and Zᵀ·X: sums of weighted rows, which `embedding_bag` adds up
without storing the summands.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from bilens.nn.largest import largest


def code_times(values: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
    """Return Z·matrix, (rows, k) and (num_latents, d) → (rows, d), with gradients.

    Cost: O(rows · k · d) time, forwards and backwards.
    """
    product: Tensor = _CodeTimes.apply(values, indices, matrix)  # type: ignore[no-untyped-call]
    return product


def code_transposed_times(values: Tensor, indices: Tensor, x: Tensor, num_latents: int) -> Tensor:
    """Return Zᵀ·x, (rows, k) and (rows, d) → (num_latents, d).

    Cost: O(rows · k · d) time, and sorting the rows · k places.
    """
    flat = indices.reshape(-1)
    order = flat.argsort()
    counts = torch.bincount(flat, minlength=num_latents)
    return functional.embedding_bag(
        order // indices.shape[1],
        x,
        counts.cumsum(0) - counts,
        per_sample_weights=values.reshape(-1)[order],
        mode="sum",
    )


def chosen_pre_activations(
    x: Tensor, encoder: Tensor, bias: Tensor, k: int
) -> tuple[Tensor, Tensor]:
    """Return the k largest entries of encoder·x + bias of each row, and where, with gradients.

    Cost: one dense product, O(rows · d · num_latents); backwards O(rows · k · d).

    Args:
        x: (rows, d), finite.
        encoder: (num_latents, d).
        bias: (num_latents,).
        k: below num_latents.

    Returns:
        Values, falling, and indices, (rows, k) each.
    """
    values, indices = _Chosen.apply(x, encoder, bias, k)  # type: ignore[no-untyped-call]
    return values, indices


class _CodeTimes(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, values: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
        ctx.save_for_backward(values, indices, matrix)
        return functional.embedding_bag(indices, matrix, per_sample_weights=values, mode="sum")

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, None, Tensor | None]:
        values, indices, matrix = ctx.saved_tensors
        grad_values = grad_matrix = None
        if ctx.needs_input_grad[0]:
            grad_values = _row_products(grad, indices, matrix)
        if ctx.needs_input_grad[2]:
            grad_matrix = code_transposed_times(values, indices, grad, len(matrix))
        return grad_values, None, grad_matrix


class _Chosen(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: Tensor, encoder: Tensor, bias: Tensor, k: int
    ) -> tuple[Tensor, Tensor]:
        values, indices = largest(functional.linear(x, encoder, bias), k)
        ctx.save_for_backward(x, encoder, indices)
        ctx.mark_non_differentiable(indices)
        return values, indices

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(
        ctx: Any, grad: Tensor, _no_grad: Tensor
    ) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, encoder, indices = ctx.saved_tensors
        grad_x = grad_encoder = grad_bias = None
        if ctx.needs_input_grad[0]:
            grad_x = functional.embedding_bag(indices, encoder, per_sample_weights=grad, mode="sum")
        if ctx.needs_input_grad[1]:
            grad_encoder = code_transposed_times(grad, indices, x, len(encoder))
        if ctx.needs_input_grad[2]:
            grad_bias = grad.new_zeros(len(encoder))
            grad_bias.index_add_(0, indices.reshape(-1), grad.reshape(-1))
        return grad_x, grad_encoder, grad_bias, None


def _row_products(grad: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
    """Return grad·matrixᵀ at the places of the code alone, (rows, d) → (rows, k)."""
    with torch.enable_grad():  # embedding_bag has a kernel for it, as the gradient of its weights
        weights = torch.zeros(indices.shape, dtype=grad.dtype, device=grad.device)
        weights.requires_grad_()
        product = functional.embedding_bag(indices, matrix, per_sample_weights=weights, mode="sum")
    (products,) = torch.autograd.grad(product, weights, grad)
    return products
