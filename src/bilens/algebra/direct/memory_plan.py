"""How large the blocks are, and whether the features stay in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.direct.pieces import STRIP
from bilens.algebra.gram.blocks import block_bytes
from bilens.base.checks import check_memory, memory_limit

BLOCK = 1024  # wide enough for full speed of the product, small beside the features
ARRAYS_STRIP = 6  # of a strip: its entries, their sizes, powers, places
ARRAYS_BLOCK = 2  # (block, block) alive at once: the last product, and the next one
ARRAYS_ROWS = 5  # (block, 2·hidden): both sides, weighted, in the making, and gaps of the heap
ARRAYS_COLUMNS = 2  # (block, in): columns of the dictionary in float64, and scaled


@dataclass(frozen=True)
class MemoryPlan:
    """The size of the blocks, and whether (features, 2·hidden) rows are kept."""

    block: int
    keep: bool


@dataclass(frozen=True)
class Demand:
    """What a computation of direct interactions holds in memory, in float64 numbers.

    Attributes:
        sizes: of the map.
        num_features: columns of the dictionary.
        num_directions: output directions.
        num_listed: entries listed for each output, spare ones included.
        precision: dtype of the rows that are kept.
    """

    sizes: FactorSizes
    num_features: int
    num_directions: int
    num_listed: int
    precision: torch.dtype

    def fixed(self) -> int:
        """Return the bytes that no choice of block changes."""
        d_out, hidden, d_in = self.sizes
        factors = 2 * (d_out + 2 * d_in) * hidden + d_out * d_in  # in float64, and scaled
        corner = 7 * d_in**2 + 2 * hidden * d_in  # of the dictionary, and the factors in it
        targets = self.num_directions * (4 * hidden + 2 * d_in + d_out)
        listed = self.num_listed * (12 * hidden + 2 * d_in)
        results = (2 * self.num_directions + 10) * self.num_features
        norms = block_bytes(hidden, 6 * d_in)
        return 8 * (factors + corner + targets + listed + results) + norms

    def blocks(self, block: int) -> int:
        """Return the bytes that blocks of one size take."""
        rows = block * (ARRAYS_ROWS * 2 * self.sizes.d_hidden + ARRAYS_COLUMNS * self.sizes.d_in)
        return 8 * (ARRAYS_BLOCK * block**2 + ARRAYS_STRIP * min(STRIP, block**2) + rows)

    def kept(self) -> int:
        """Return the bytes of the rows of all features."""
        return self.num_features * 2 * self.sizes.d_hidden * self.precision.itemsize


def plan_memory(demand: Demand, block: int | None, limit: int | str | None = None) -> MemoryPlan:
    """Return the block asked for, or else the largest that fits, by halves from BLOCK.

    The rows of all features are kept if they fit beside the blocks.

    Raises:
        MemoryLimitError: If the block asked for, or one of a single feature, does not fit.
    """
    spare = memory_limit(limit) - demand.fixed()
    chosen = BLOCK if block is None else block
    while block is None and chosen > 1 and demand.blocks(chosen) > spare:
        chosen //= 2
    chosen = min(chosen, demand.num_features)
    check_memory(
        demand.fixed() + demand.blocks(chosen),
        f"reading {demand.num_features} features of {demand.sizes.d_in} inputs along "
        f"{demand.num_directions} directions in blocks of {chosen}",
        "read fewer features or directions at a time, or pass a smaller block",
        limit,
    )
    return MemoryPlan(chosen, demand.blocks(chosen) + demand.kept() <= spare)
