"""How large the blocks are, and whether the features stay in memory."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.direct.pieces import STRIP
from bilens.algebra.gram.blocks import WORK_BYTES
from bilens.checks import check_memory, memory_limit

BLOCK = 1024  # wide enough for full speed of the product, small beside the features
ARRAYS_STRIP = 6  # arrays of a strip alive at once: its entries, their sizes, powers, places
ARRAYS_ROWS = (
    4  # (block, 2·hidden) float64 arrays alive at once: both sides, weighted, in the making
)


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
        _, hidden, d_in = self.sizes
        inputs = 4 * d_in * (self.num_features + hidden)  # in float64, scaled, reduced to a corner
        norms = min(WORK_BYTES // 8, hidden * (6 * d_in + 8 * hidden))
        listed = 12 * self.num_listed * hidden
        results = (2 * self.num_directions + 4) * self.num_features
        return 8 * (inputs + norms + listed + results)

    def blocks(self, block: int) -> int:
        """Return the bytes that blocks of one size take."""
        rows = ARRAYS_ROWS * block * 2 * self.sizes.d_hidden
        return 8 * (block**2 + ARRAYS_STRIP * min(STRIP, block**2) + rows)

    def kept(self) -> int:
        """Return the bytes of the rows of all features."""
        return self.num_features * 2 * self.sizes.d_hidden * self.precision.itemsize


def plan_memory(demand: Demand, block: int | None) -> MemoryPlan:
    """Return the block asked for, or else the largest that fits, by halves from BLOCK.

    The rows of all features are kept if they fit beside the blocks.

    Raises:
        MemoryLimitError: If the block asked for, or one of a single feature, does not fit.
    """
    spare = memory_limit() - demand.fixed()
    chosen = BLOCK if block is None else block
    while block is None and chosen > 1 and demand.blocks(chosen) > spare:
        chosen //= 2
    chosen = min(chosen, demand.num_features)
    check_memory(
        demand.fixed() + demand.blocks(chosen),
        f"reading {demand.num_features} features of {demand.sizes.d_in} inputs along "
        f"{demand.num_directions} directions in blocks of {chosen}",
        "read fewer features or directions at a time, or pass a smaller block",
    )
    return MemoryPlan(chosen, demand.blocks(chosen) + demand.kept() <= spare)
