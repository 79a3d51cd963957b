"""Which entries of a large product can be among the largest: found from 8 bits of each factor.

Both factors are rounded to integers of 8 bits, whose product is exact and an order of magnitude
faster. How far an entry is off is bounded by what the rounding took away (Cauchy–Schwarz), so that
no entry is lost: all that may be among the largest are handed over, and computed anew.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import blocks

STEPS = 127  # of an 8-bit integer, on either side of zero
EXACT_IN_FLOAT = 2**24 // STEPS**2  # terms whose integer sum float32 holds exactly
ROWS = 256  # of the product at a time: it stays in the cache
PRODUCT_BYTES = 64 * 2**20  # of the products that are kept until a threshold is known
MARGIN = 1 + 1e-5  # of the bound, for the rounding of the norms in float32


@dataclass(frozen=True, eq=False)
class Rounded:
    """Rows as unit · integers, and how far that is from them."""

    integers: Tensor  # (num, width) int8
    unit: float  # what an integer of one stands for
    error: float  # the largest norm of a row less its rounded self
    norm: float  # the largest norm of a rounded row, `error` included

    @classmethod
    def of(cls, rows: Tensor, space: Workspace | None = None) -> Rounded:
        """Round (num, width) float32 rows to a common unit."""
        space = Workspace.like(rows) if space is None else space
        low, high = rows.aminmax()
        unit = float(torch.maximum(-low, high)) / STEPS
        if unit == 0:
            return cls(space.integers.zero_(), 1.0, 0.0, 0.0)
        scaled = torch.div(rows, unit, out=space.scaled)
        nearest = torch.round(scaled, out=space.nearest)
        integers = space.integers.copy_(nearest)
        lost = scaled.sub_(nearest)
        error = float(torch.linalg.vector_norm(lost, dim=1).max()) * unit * MARGIN
        norm = float(torch.linalg.vector_norm(rows, dim=1).max()) * MARGIN
        return cls(integers, unit, error, norm + error)


@dataclass(frozen=True, eq=False)
class Workspace:
    """Memory that is written anew for each set of rows: fresh memory costs more than the work."""

    scaled: Tensor  # (num, width) float32
    nearest: Tensor  # likewise
    integers: Tensor  # (num, width) int8

    @classmethod
    def like(cls, rows: Tensor) -> Workspace:
        """Return memory for rows of this size."""
        return cls(
            torch.empty_like(rows),
            torch.empty_like(rows),
            torch.empty_like(rows, dtype=torch.int8),
        )


class Screen:
    """Screens the products of (num, width) float32 rows A with one B after another."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.rounded = Rounded.of(rows)
        self.space = Workspace.like(rows)

    def may_be_largest(self, others: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Return positions above the diagonal of A · Bᵀ, among them the `num` largest in size."""
        # Math: |a·b − â·b̂| ≤ ‖a − â‖ ‖b‖ + ‖â‖ ‖b − b̂‖. An entry is left out if its rounded size
        # and this bound together do not reach the `num`-th largest of some entries computed in
        # full.
        other = Rounded.of(others, self.space)
        unit = self.rounded.unit * other.unit
        bound = self.rounded.error * other.norm + self.rounded.norm * other.error
        best = self.rows.new_empty(0)
        found: list[Tensor] = []
        for parts in self._strips():
            products = [self._sizes(part, other) for part in parts]
            peaks = [product.amax(dim=1) for product in products]
            best = torch.cat([best, self._full_sizes(parts, products, peaks, others, num)])
            best = best.topk(min(num, len(best))).values
            least = (float(best[-1]) - bound) / unit if len(best) == num else -1.0
            for part, product, peak in zip(parts, products, peaks, strict=True):
                near = (peak >= least).nonzero()[:, 0]
                position = (product[near] >= least).nonzero()
                found.append(torch.stack([near[position[:, 0]], position[:, 1]]) + part.start)
        first, second = torch.cat(found, dim=1)
        above = second > first
        return first[above], second[above]

    def _strips(self) -> Iterator[list[slice]]:
        """Yield ranges of rows whose products are kept together."""
        features = len(self.rows)
        for strip in blocks(features, max(ROWS, PRODUCT_BYTES // (4 * features))):
            yield list(blocks(strip.stop, ROWS, strip.start))

    def _sizes(self, part: slice, other: Rounded) -> Tensor:
        """Return |Â · B̂ᵀ| of some rows, from their first one on; zero up to the diagonal."""
        product = integer_product(self.rounded.integers[part], other.integers[part.start :].T)
        product[:, : part.stop - part.start].triu_(1)
        return product.abs_()

    def _full_sizes(
        self,
        parts: list[slice],
        products: list[Tensor],
        peaks: list[Tensor],
        others: Tensor,
        num: int,
    ) -> Tensor:
        """Return the sizes, computed in full, of the largest entries of the rows that peak most."""
        high = torch.cat(peaks).topk(min(num, sum(map(len, peaks)))).indices
        first, second = [], []
        for part, product in zip(parts, products, strict=True):
            offset = part.start - parts[0].start
            mine = high[(high >= offset) & (high < offset + len(product))] - offset
            first.append(mine + part.start)
            second.append(product[mine].argmax(dim=1) + part.start)
        m, n = torch.cat(first), torch.cat(second)
        above = n > m  # not a zero below the diagonal
        sizes: Tensor = (self.rows[m[above]] * others[n[above]]).sum(dim=1).abs()
        return sizes


def integer_product(first: Tensor, second: Tensor) -> Tensor:
    """Return the exact product of int8 matrices."""
    product = getattr(torch, "_int_mm", None)
    if product is not None and first.device.type == "cpu":
        return product(first, second)  # type: ignore[no-any-return]
    dtype = torch.float32 if first.shape[1] <= EXACT_IN_FLOAT else torch.float64
    return first.to(dtype) @ second.to(dtype)
