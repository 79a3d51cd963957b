"""Inner products of bilinear tensors, from their factors."""

from __future__ import annotations

import torch
from torch import Tensor

BLOCK = 1024  # hidden units a block: four (1024, hidden) arrays stay small beside the factors


def output_gram(
    down: Tensor, left: Tensor, right: Tensor, down2: Tensor, left2: Tensor, right2: Tensor
) -> Tensor:
    """Return all inner products ⟨Q_i, Q'_j⟩ between the interaction matrices of two tensors.

    Math: P H P'ᵀ with H = ½[(L L'ᵀ)∘(R R'ᵀ) + (L R'ᵀ)∘(R L'ᵀ)], in float64.
    Cost: O(hidden · hidden' · in) time; O(BLOCK · hidden' + out · out') memory.

    Args:
        down: P, (out, hidden).
        left: L, (hidden, in).
        right: R, (hidden, in).
        down2: P', (out', hidden').
        left2: L', (hidden', in).
        right2: R', (hidden', in).

    Returns:
        (out, out') float64.

    Source: arXiv:2410.08417, §3.3 (the Gram matrix of the flattened tensor), from factors.
    """
    down, left, right = down.double(), left.double(), right.double()
    down2, left2, right2 = down2.double(), left2.double(), right2.double()
    total = down.new_zeros(len(down), len(down2))
    for start in range(0, len(left), BLOCK):
        rows = slice(start, start + BLOCK)
        straight = (left[rows] @ left2.T) * (right[rows] @ right2.T)
        crossed = (left[rows] @ right2.T) * (right[rows] @ left2.T)
        total = total + down[:, rows] @ (straight + crossed) @ down2.T
    return total / 2


def outputs_traces(down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return tr Q_c = Σ_h down[c, h] (left_h · right_h), (out,) float64, in O(hidden · in)."""
    return down.double() @ (left.double() * right.double()).sum(dim=1)


def no_negative(value: Tensor) -> Tensor:
    """Return a squared norm without the rounding error that can push a zero below zero."""
    return torch.clamp(value, min=0.0)
