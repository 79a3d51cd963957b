"""Cross-entropy of a linear head, rows at a time: the logits of all rows never exist together.

The gradient is formed while the logits of its rows are at hand, so that each logit is computed
once and nothing of their size is kept for the backward pass.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd import Function
from torch.autograd.function import once_differentiable

CACHED_LOGITS = 2**20  # what a processor's cache holds: 4 MiB
FEWEST_ROWS = 256  # fewer make the products slow


def mean_cross_entropy(x: Tensor, weight: Tensor, targets: Tensor) -> Tensor:
    """Return the mean of −log softmax(weight x)[target] over the rows, in nats."""
    device = x.device.type
    cast = torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
    with torch.autocast(device, enabled=False):  # it would widen the logits by a copy
        if torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
            loss: Tensor = _MeanCrossEntropy.apply(x, weight, targets, cast)  # type: ignore[no-untyped-call]
            return loss
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for _, log_p, chosen in _pieces(x, weight.to(cast), targets):
            total -= log_p.gather(1, chosen).sum()
        return (total / len(x)).to(torch.promote_types(x.dtype, torch.float32))


def _pieces(x: Tensor, weight: Tensor, targets: Tensor) -> Iterator[tuple[slice, Tensor, Tensor]]:
    """Yield rows, the logarithms of their probabilities, and their targets as a column."""
    logits = CACHED_LOGITS * (1 if x.device.type == "cpu" else 64)
    size = max(FEWEST_ROWS, logits // len(weight))
    wide = torch.promote_types(weight.dtype, torch.float32)
    for start in range(0, len(x), size):
        rows = slice(start, start + size)
        scores = x[rows].to(weight.dtype) @ weight.T
        yield rows, scores.log_softmax(dim=1, dtype=wide), targets[rows, None]


class _MeanCrossEntropy(Function):
    """Loss and gradients in one pass: ∂/∂logits = (softmax − one-hot) / rows."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, targets: Tensor, cast: torch.dtype) -> Tensor:
        """Return the loss; its gradients are kept, up to the factor 1 / rows."""
        narrow = weight.to(cast)
        x_grad, weight_grad = torch.empty_like(x), torch.zeros_like(weight)
        total = torch.zeros((), dtype=torch.float64, device=x.device)
        for rows, log_p, chosen in _pieces(x, narrow, targets):
            total -= log_p.gather(1, chosen).sum()
            grad = log_p.exp_()
            grad.scatter_add_(1, chosen, grad.new_full(chosen.shape, -1))
            grad = grad.to(cast)
            x_grad[rows] = grad @ narrow
            weight_grad += grad.T @ x[rows].to(cast)
        ctx.save_for_backward(x_grad, weight_grad)
        ctx.rows = len(x)
        return (total / len(x)).to(torch.promote_types(x.dtype, torch.float32))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor, Tensor, None, None]:
        """Return the gradients of x and weight."""
        x_grad, weight_grad = ctx.saved_tensors
        scale = grad / ctx.rows
        return (
            (x_grad * scale).to(x_grad.dtype),
            (weight_grad * scale).to(weight_grad.dtype),
            None,
            None,
        )
