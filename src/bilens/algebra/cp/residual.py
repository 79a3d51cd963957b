"""Norms of tensors whose terms nearly cancel, which Gram matrices cannot tell from rounding."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bilens.algebra.gram.squared_norms import squared_norms
from bilens.base.errors import NumericalError

EPS = torch.finfo(torch.float64).eps
SAFE = 1e6 * EPS  # a squared norm above this share of its terms keeps six digits
SLAB_PRODUCTS = 10**10  # multiplications: seconds on one core


def accurate_norm(down: Tensor, left: Tensor, right: Tensor) -> float:
    """Return ‖Σ_h down_h ⊗ sym(l_h r_hᵀ)‖_F, from Gram matrices or, where they cancel, slabs.

    Cost: O(hidden² · (in + out)); only where terms cancel that of `slab_norm`.

    Returns:
        0 if the tensor is zero up to the rounding of its terms.

    Raises:
        NumericalError: If terms cancel to rounding and slabs would take too long.
    """
    size = float(down.norm(dim=0).sum())  # the rows of left and right have unit length
    square = float(squared_norms(down, left, right).sum())
    if square > SAFE * size**2:
        return math.sqrt(square)
    if slab_products(down, left) > SLAB_PRODUCTS:
        raise NumericalError(
            f"the hidden units cancel to less than {SAFE**0.5:.0e} of their size, where the norm "
            f"of {tuple(left.shape)} factors is rounding: merge or drop hidden units that cancel."
        )
    norm = slab_norm(down, left, right)
    return norm if norm > len(left) * EPS * size else 0.0


def slab_products(down: Tensor, left: Tensor) -> int:
    """Return how many multiplications `slab_norm` takes."""
    (d_out, d_hidden), d_in = down.shape, left.shape[1]
    return min(d_out, d_hidden) * d_hidden * min(d_in, 2 * d_hidden) ** 2


def slab_norm(down: Tensor, left: Tensor, right: Tensor) -> float:
    """Return ‖Σ_h down_h ⊗ sym(l_h r_hᵀ)‖_F from its entries, one output at a time.

    Terms cancel before they are squared, so the error is of the order of eps, not √eps, times the
    size of the terms.

    Cost: O(out · hidden · in²) time with out ≤ hidden and in ≤ 2·hidden after a change of basis,
        O(in²) memory.
    """
    d_hidden = len(left)
    if down.shape[0] > d_hidden:  # an orthogonal change of basis keeps norms
        down = torch.linalg.qr(down, mode="r").R
    if left.shape[1] > 2 * d_hidden:
        corner = torch.linalg.qr(torch.cat([left, right]).T, mode="r").R
        left, right = corner[:, :d_hidden].T, corner[:, d_hidden:].T
    total = down.new_zeros(())
    for weight in down:
        half = (left.T * weight) @ right
        total = total + ((half + half.T) / 2).square().sum()
    return float(total.sqrt())
