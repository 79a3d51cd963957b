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


def code_times(values: Tensor, indices: Tensor, matrix: Tensor) -> Tensor:
    """Return Z·matrix, (rows, k) and (num_latents, d) → (rows, d), with gradients."""
    product: Tensor = _CodeTimes.apply(values, indices, matrix)  # type: ignore[no-untyped-call]
    return product


def code_transposed_times(values: Tensor, indices: Tensor, x: Tensor, num_latents: int) -> Tensor:
    """Return Zᵀ·x, (rows, k) and (rows, d) → (num_latents, d)."""
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
    """Return the k largest entries of encoder·x + bias of each row, and where, with gradients."""
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
    """Return grad·matrixᵀ at the entries of the code alone, (rows, d) → (rows, k)."""
    with torch.enable_grad():  # embedding_bag has a kernel for it, as the gradient of its weights
        weights = torch.zeros(indices.shape, dtype=grad.dtype, device=grad.device)
        weights.requires_grad_()
        product = functional.embedding_bag(indices, matrix, per_sample_weights=weights, mode="sum")
    (products,) = torch.autograd.grad(product, weights, grad)
    return products


GROUP_SIZES = (8, 4, 2)
GROUPS_PER_VALUE = 4  # with fewer groups, nearly all of them hold one of the largest values


@torch.no_grad()
def largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest of the last axis, falling, and where; of equals, the first."""
    values, indices = _any_largest(rows, k + 1)
    tied = (values[..., 1:] == values[..., :-1]).any(dim=-1)
    values, indices = values[..., :k], indices[..., :k]
    if bool(tied.any()):
        first = rows[tied].sort(dim=-1, descending=True, stable=True)
        values, indices = values.clone(), indices.clone()
        values[tied], indices[tied] = first.values[:, :k], first.indices[:, :k]
    return values, indices


def _any_largest(rows: Tensor, k: int) -> tuple[Tensor, Tensor]:
    """Return the k largest, falling, and where; of equals, any."""
    n = rows.shape[-1]
    size = next((s for s in GROUP_SIZES if n % s == 0 and n // s >= GROUPS_PER_VALUE * k), 1)
    if size == 1 or rows.device.type != "cpu":
        values, indices = rows.topk(k, dim=-1)
        return values, indices
    maxima = rows.reshape(*rows.shape[:-1], size, n // size).amax(dim=-2)
    groups = maxima.topk(k, dim=-1, sorted=False).indices
    members = torch.arange(0, n, n // size).unsqueeze(1)
    candidates = (groups.unsqueeze(-2) + members).flatten(-2)
    values, chosen = rows.gather(-1, candidates).topk(k, dim=-1)
    return values, candidates.gather(-1, chosen)
