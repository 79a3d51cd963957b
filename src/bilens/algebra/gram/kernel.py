"""Inner products between the hidden units of layers, a block of them at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

WORK_BYTES = 128 * 2**20  # what the blocks of a call may take, beside its factors and its result
FEWEST_ROWS = 16  # smaller blocks would spend their time on calls; only in > 200,000 meets it
ROWS_OF_BLOCKS = 8  # 8 · 9 / 2 of 64 blocks are on or above the diagonal: 53 % of the products
MOST_BLOCKS = 64  # along the units of a layer: with 222 rows each took 7 to 25 % longer than 375
SINGLE = 2**22  # entries of a branch, 1,024 × 4,096, from which products may be in float32


def rows_within(width: int, hidden: int = 0) -> int:
    """Return how many rows r fit: r · width and 8 · r² float64 numbers within WORK_BYTES.

    Or, where that is more, within a 64th of what `hidden` rows take.
    """
    numbers = max(WORK_BYTES / 8, hidden * width / MOST_BLOCKS)
    return max(FEWEST_ROWS, int(2 * numbers / (width + (width**2 + 32 * numbers) ** 0.5)))


def block_size(hidden: int, width: int) -> int:
    """Return how many hidden units make a block: what fits, and few enough to gain by symmetry."""
    return min(rows_within(width, hidden), max(FEWEST_ROWS, -(-hidden // ROWS_OF_BLOCKS)))


def block_bytes(hidden: int, width: int) -> int:
    """Return the memory of blocks of `block_size`: at most WORK_BYTES, unless a layer is huge."""
    rows = block_size(hidden, width)
    return 8 * (rows * width + 8 * rows**2)


def blocks(length: int, size: int, start: int = 0) -> Iterator[slice]:
    for first in range(start, length, size):
        yield slice(first, min(first + size, length))


def product_dtype(branch: Tensor) -> torch.dtype:
    """Return in what to multiply where six digits are enough: float32 takes half of the time."""
    exact = torch.get_float32_matmul_precision() == "highest"  # an option of torch gives digits up
    return torch.float32 if exact and branch.numel() > SINGLE else torch.float64


@dataclass(frozen=True, eq=False)
class Branches:
    """The two branches of a layer, read as rows of unit length, a block at a time."""

    left: Tensor  # (hidden, in), any floating dtype
    right: Tensor  # (hidden, in)
    left_length: Tensor  # (hidden,) float64, constants for gradients (see `unit_rows`)
    right_length: Tensor  # likewise
    dtype: torch.dtype = torch.float64  # in which they are read
    unit: float = 1.0  # in which weights are read

    @classmethod
    def from_factors(cls, left: Tensor, right: Tensor) -> Branches:
        return cls(left, right, row_lengths(left), row_lengths(right))

    def unit_rows_of(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return left and right of some hidden units, (block, in) each."""
        left = self.left[rows].double() / nonzero(self.left_length[rows])[:, None]
        right = self.right[rows].double() / nonzero(self.right_length[rows])[:, None]
        return left.to(self.dtype), right.to(self.dtype)

    def weigh(self, weights: Tensor, rows: slice) -> Tensor:
        """Return the weights of some hidden units, with the lengths moved in, (num, block)."""
        moved = weights[:, rows].double() * self.left_length[rows]
        moved *= self.right_length[rows]
        moved /= self.unit
        return moved.to(self.dtype)


def kernel_row(
    first: Branches, second: Branches, rows: slice, size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the columns and values of H = ½[(L L'ᵀ)∘(R R'ᵀ) + (L R'ᵀ)∘(R L'ᵀ)] in some rows."""
    # H of a layer with itself (`second is first`) is symmetric: only the blocks on and above the
    # diagonal come, those on it halved, so that all of them and their transposes add up to H.
    itself = second is first
    left, right = first.unit_rows_of(rows)
    for columns in blocks(len(second.left), size, start=rows.start if itself else 0):
        diagonal = itself and columns == rows
        left2, right2 = (left, right) if diagonal else second.unit_rows_of(columns)
        mixed = left @ right2.T
        crossed = mixed * (mixed.T if diagonal else right @ left2.T)
        both = torch.addcmul(crossed, left @ left2.T, right @ right2.T)
        yield columns, both / (4 if diagonal else 2)


def row_lengths(rows: Tensor) -> Tensor:
    """Return the length of every row, (num,) float64, a constant for gradients."""
    with torch.no_grad():
        size = rows_within(4 * rows.shape[1])
        parts = [unit_rows(rows[part].double())[1] for part in blocks(len(rows), size)]
        return torch.cat(parts)


def nonzero(lengths: Tensor) -> Tensor:
    """Return lengths that one can divide by: a row of zeros is left as it is."""
    return torch.where(lengths > 0, lengths, 1.0)


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of unit length, and the lengths they had; a row of zeros stays one."""
    # Constants for gradients: row = unit · length holds for any constant length.
    with torch.no_grad():
        largest = rows.abs().amax(dim=1, keepdim=True)
        shrunk = rows / torch.where(largest > 0, largest, 1.0)  # its squares are harmless
        length = shrunk.norm(dim=1, keepdim=True) * largest
        divisor = torch.where(length > 0, length, 1.0)
    return rows / divisor, length.squeeze(1)
