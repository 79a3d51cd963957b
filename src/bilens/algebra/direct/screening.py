"""Which entries of a large product can be among the largest: found from 8 bits of each factor.

Both factors are rounded to integers of 8 bits, whose product is exact and an order of magnitude
faster. How far an entry is off is bounded by what the rounding took away (Cauchy–Schwarz), so that
no entry is lost: all that may be among the largest are handed over, and computed anew.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import blocks

STEPS = 127  # of an 8-bit integer, on either side of zero
EXACT_IN_FLOAT = 2**24 // STEPS**2  # terms whose integer sum float32 holds exactly
ROWS = 256  # of the product at a time: it stays in the cache
MARGIN = 1 + 1e-5  # of the bound, for the rounding of the norms in float32


@dataclass(frozen=True, eq=False)
class Rounded:
    """Rows as unit · integers, and how far that is from them.

    Attributes:
        integers: (num, width) int8.
        unit: what an integer of one stands for.
        error: the largest norm of a row less its rounded self.
        norm: the largest norm of a rounded row, `error` included.
    """

    integers: Tensor
    unit: float
    error: float
    norm: float

    @classmethod
    def of(cls, rows: Tensor) -> Rounded:
        """Round (num, width) float32 rows to a common unit."""
        low, high = rows.aminmax()
        unit = float(torch.maximum(-low, high)) / STEPS
        if unit == 0:
            return cls(torch.zeros_like(rows, dtype=torch.int8), 1.0, 0.0, 0.0)
        scaled = rows / unit
        integers = scaled.round()
        error = float(torch.linalg.vector_norm(scaled - integers, dim=1).max()) * unit * MARGIN
        norm = float(torch.linalg.vector_norm(rows, dim=1).max()) * MARGIN
        return cls(integers.to(torch.int8), unit, error, norm + error)


def may_be_largest(
    rows: Tensor, rounded: Rounded, others: Tensor, num: int
) -> tuple[Tensor, Tensor]:
    """Return places above the diagonal of rows · othersᵀ, among them the `num` largest in size.

    Math: |a·b − â·b̂| ≤ ‖a − â‖ ‖b‖ + ‖â‖ ‖b − b̂‖. An entry is left out if its rounded size and
        this bound together do not reach the `num`-th largest of some entries computed in full.
    Cost: O(features² · width) in 8 bits, O(features · (ROWS + width)) memory.

    Args:
        rows: A, (features, width) float32.
        rounded: the same, rounded.
        others: B, (features, width) float32.
        num: how many entries; fewer where there are fewer.

    Returns:
        First and second feature of each place, (found,) each, first < second.
    """
    features = len(rows)
    other = Rounded.of(others)
    unit = rounded.unit * other.unit
    bound = (rounded.error * other.norm + rounded.norm * other.error) / unit
    best = rows.new_empty(0)
    found: list[Tensor] = []
    for part in blocks(features, ROWS):
        product = integer_product(rounded.integers[part], other.integers[part.start :].T)
        product[:, : part.stop - part.start].triu_(1)
        peaks = torch.maximum(product.amax(dim=1), -product.amin(dim=1))
        high = peaks.topk(min(num, len(peaks))).indices
        columns = product[high].abs().argmax(dim=1)
        sizes = (rows[part][high] * others[part.start :][columns]).sum(dim=1).abs()
        inside = columns > high  # not a zero below the diagonal
        best = torch.cat([best, sizes[inside]])
        best = best.topk(min(num, len(best))).values
        least = float(best[-1]) / unit - bound if len(best) == num else -1.0
        near = (peaks >= least).nonzero()[:, 0]
        place = (product[near].abs() >= least).nonzero()
        found.append(torch.stack([near[place[:, 0]], place[:, 1]]) + part.start)
    first, second = torch.cat(found, dim=1)
    above = second > first
    return first[above], second[above]


def integer_product(first: Tensor, second: Tensor) -> Tensor:
    """Return the exact product of int8 matrices.

    Sums of up to EXACT_IN_FLOAT products are exact in float32 as well, where torch has no product
    of integers on this device.
    """
    product = getattr(torch, "_int_mm", None)
    if product is not None and first.device.type == "cpu":
        return product(first, second)  # type: ignore[no-any-return]
    dtype = torch.float32 if first.shape[1] <= EXACT_IN_FLOAT else torch.float64
    return first.to(dtype) @ second.to(dtype)
