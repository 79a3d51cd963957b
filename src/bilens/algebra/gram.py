"""Inner products of bilinear tensors, from their factors."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.unit_rows import unit_rows

BLOCK = 1024  # hidden units a block: four (1024, hidden) arrays stay small beside the factors


def output_gram(
    down: Tensor, left: Tensor, right: Tensor, down2: Tensor, left2: Tensor, right2: Tensor
) -> Tensor:
    """Return all inner products ⟨Q_i, Q'_j⟩ between the interaction matrices of two tensors.

    Math: P H P'ᵀ with H = ½[(L L'ᵀ)∘(R R'ᵀ) + (L R'ᵀ)∘(R L'ᵀ)], in float64.
    Cost: O(hidden · hidden' · in) time; O(BLOCK · hidden' + out · out') memory beside the factors.
    Accuracy: eps · Σ|P_h|‖l_h‖‖r_h‖ · Σ|P'_h|‖l'_h‖‖r'_h‖ absolute. Where terms cancel, so that a
        matrix is far smaller than its terms, a squared norm taken from here is rounding.

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
    down, left, right = unit_factors(down, left, right)
    down2, left2, right2 = unit_factors(down2, left2, right2)
    total = down.new_zeros(len(down), len(down2))
    for start in range(0, len(left), BLOCK):
        rows = slice(start, start + BLOCK)
        straight = (left[rows] @ left2.T) * (right[rows] @ right2.T)
        crossed = (left[rows] @ right2.T) * (right[rows] @ left2.T)
        total = total + down[:, rows] @ (straight + crossed) @ down2.T
    return total / 2


def unit_factors(down: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same tensor in float64, with the lengths of all rows moved into `down`."""
    left, left_length = unit_rows(left.double())
    right, right_length = unit_rows(right.double())
    return down.double() * left_length * right_length, left, right


def outputs_traces(down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return tr Q_c = Σ_h down[c, h] (left_h · right_h), (out,) float64, in O(hidden · in)."""
    return down.double() @ (left.double() * right.double()).sum(dim=1)


def no_negative(value: Tensor) -> Tensor:
    """Return a squared norm without the rounding error that can push a zero below zero."""
    return torch.clamp(value, min=0.0)
