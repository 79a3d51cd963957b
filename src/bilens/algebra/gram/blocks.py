"""How many hidden units are worked on at a time, so that memory stays within a budget."""

from __future__ import annotations

from collections.abc import Iterator

WORK_BYTES = 128 * 2**20  # what the blocks of a call may take, beside its factors and its result
FEWEST_ROWS = 16  # smaller blocks would spend their time on calls; only in > 200,000 meets it
ROWS_OF_BLOCKS = 8  # 8 · 9 / 2 of 64 blocks are on or above the diagonal: 53 % of the products


def rows_within(width: int) -> int:
    """Return how many rows r fit: r · width and 8 · r² float64 numbers within WORK_BYTES."""
    numbers = WORK_BYTES / 8
    return max(FEWEST_ROWS, int(2 * numbers / (width + (width**2 + 32 * numbers) ** 0.5)))


def block_size(hidden: int, width: int) -> int:
    """Return how many hidden units make a block: what fits, and few enough to gain by symmetry."""
    return min(rows_within(width), max(FEWEST_ROWS, -(-hidden // ROWS_OF_BLOCKS)))


def block_bytes(hidden: int, width: int) -> int:
    """Return the memory of blocks of `block_size`: at most WORK_BYTES, unless an input is huge."""
    rows = block_size(hidden, width)
    return 8 * (rows * width + 8 * rows**2)


def blocks(length: int, size: int, start: int = 0) -> Iterator[slice]:
    """Yield slices of at most `size` that cover start … length in order."""
    for first in range(start, length, size):
        yield slice(first, min(first + size, length))
