"""Factored matrices in a scale of their own, where nothing can overflow or vanish."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

BLOCK_BYTES = 64 * 2**20  # rows of the factors that are converted at a time


@dataclass(frozen=True, eq=False)
class BalancedForms:
    """Q_c = units_c · Σ_h weights_ch sym(left_h right_hᵀ): forms that share their factors.

    Rows and units are scaled by powers of two, so that the scaling itself rounds nothing. The
    same for every way (α l, β r, s / αβ) of writing a neuron, up to a factor of two a row.

    Attributes:
        left: (hidden, in), rows of length between ½ and 1 (or zero), in the dtype of the map.
        right: (hidden, in), likewise.
        weights: (num, hidden) float64; the largest |weight| of a form lies between ½ and 1.
        units: (num,) float64, powers of two; infinite if Q itself cannot be written in float64.
        sizes_before_cancelling: (num,), at least Σ_h |weights_ch| ≥ ‖Q_c‖/unit_c, counted before
            anything cancelled: how large the rounding of Q_c is, in units of eps.
        summed: how many products were summed to each weight; 0 if none were.
    """

    left: Tensor
    right: Tensor
    weights: Tensor
    units: Tensor
    sizes_before_cancelling: Tensor
    summed: int = 0

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.left.shape[1]

    def rows(self, chosen: Tensor | slice) -> BalancedForms:
        """Return some of the forms."""
        return replace(
            self,
            weights=self.weights[chosen],
            units=self.units[chosen],
            sizes_before_cancelling=self.sizes_before_cancelling[chosen],
        )

    def to(self, dtype: torch.dtype) -> BalancedForms:
        """Return the forms with factors of another dtype; weights and units stay float64."""
        return replace(self, left=self.left.to(dtype), right=self.right.to(dtype))

    def one(self, index: int) -> BalancedForms:
        """Return a single form, with its leading axis."""
        return self.rows(slice(index, index + 1))

    def dense(self, index: int) -> Tensor:
        """Return Q_c / unit_c of one form as an (in, in) float64 array.

        Factors of another dtype are converted a block of rows at a time.

        Cost: 2 · hidden · in² operations, two arrays and a block; that they fit is seen to before.
        """
        half = torch.zeros(self.d_in, self.d_in, dtype=torch.float64)
        block = max(BLOCK_BYTES // (24 * self.d_in), 1)
        for start in range(0, len(self.left), block):
            rows = slice(start, start + block)
            left = self.left[rows].double() * self.weights[index, rows, None]
            half.addmm_(left.T, self.right[rows].double())
        return half.add(half.T).div_(2)

    def products(self, vectors: Tensor) -> Tensor:
        """Return Q_c v / unit_c in float64, (num, k, in) → (num, k, in).

        Factors of another dtype are converted a block of rows at a time.

        Cost: 8 · hidden · in operations a vector; O(num · k · (hidden block + in)) memory.
        """
        num, k, d_in = vectors.shape
        flat = vectors.reshape(num * k, d_in).double()
        result = torch.zeros_like(flat)
        block = max(BLOCK_BYTES // (16 * (d_in + num * k)), 1)
        for start in range(0, len(self.left), block):
            rows = slice(start, start + block)
            left, right = self.left[rows].double(), self.right[rows].double()
            weights = self.weights[:, rows].repeat_interleave(k, dim=0) / 2
            result.addmm_((flat @ right.T).mul_(weights), left)
            result.addmm_((flat @ left.T).mul_(weights), right)
        return result.view(num, k, d_in)


def balance_all(
    left: Tensor,
    right: Tensor,
    weights: Tensor,
    before: Tensor | None = None,
    summed: int = 0,
) -> BalancedForms:
    """Return forms with shared factors in a scale of their own, O(hidden · (in + num)).

    Args:
        left: (hidden, in), float64 or float32.
        right: (hidden, in).
        weights: (num, hidden) float64.
        before: (num, hidden), the sizes of what was summed to the weights; None for |weights|.
        summed: how many products were summed to each weight.
    """
    left, left_exponent = halved_rows(left)
    right, right_exponent = halved_rows(right)
    alive = left.any(dim=1) & right.any(dim=1)  # a row of zeros has no size: its weight is nothing
    mantissa, exponent = torch.frexp(torch.where(alive, weights, 0.0))
    exponent += left_exponent + right_exponent  # the product itself may overflow
    lowest = torch.iinfo(exponent.dtype).min
    largest = exponent.masked_fill(mantissa == 0, lowest).amax(dim=1)
    largest = torch.where(largest > lowest, largest, 0).double()
    shift = exponent.double().sub_(largest[:, None]).clamp_(max=0.0)  # above 0 only for zeros
    scaled = shift.exp2_().mul_(mantissa)
    sizes = scaled.abs().sum(dim=1)
    if before is not None:
        rows = (left_exponent + right_exponent).double()
        parts = torch.where(alive, before, 0.0) * torch.exp2(rows - largest[:, None])
        sizes = sizes.maximum(parts.nan_to_num(torch.inf, posinf=torch.inf).sum(dim=1))
    return BalancedForms(left, right, scaled, torch.exp2(largest), sizes, summed)


def halved_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows times a power of two, of length between ½ and 1, and the exponents they had."""
    entry = torch.frexp(rows.abs().amax(dim=1)).exponent
    # Two steps: 2^-entry alone may overflow where the row does not.
    half = torch.div(entry, 2, rounding_mode="floor")
    rows = torch.ldexp(torch.ldexp(rows, -half[:, None]), -(entry - half)[:, None])
    length = torch.frexp(rows.norm(dim=1)).exponent  # of entries up to 1: it cannot overflow
    return torch.ldexp(rows, -length[:, None]), entry + length
