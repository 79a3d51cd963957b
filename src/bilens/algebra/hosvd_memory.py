"""What the parts of an HOSVD take in memory, checked before anything is allocated."""

from __future__ import annotations

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.gram.blocks import block_bytes
from bilens.base.checks import check_memory

ARRAYS = 8  # (n, n) float64 arrays alive at once: found, left over, the Gram matrix, its vectors
STAGES = 3  # (hidden, n) float64 arrays alive at once while slices are combined


def check_mode_memory(
    sizes: FactorSizes, axis: str, copies: int, limit: int | str | None = None
) -> int:
    """Return the bytes that the spectrum of one mode needs at most, beside the map.

    Args:
        sizes: of the map.
        axis: "out" or "in", the mode.
        copies: how many float64 copies of the factors are made.
        limit: as `memory_limit` takes it.

    Raises:
        MemoryLimitError: If that is more than the limit.
    """
    d_out, d_hidden, d_in = sizes
    num, way_out = (d_out, "compose_output") if axis == "out" else (d_in, "compose_input")
    factors = copies * (d_out + 2 * d_in) * d_hidden
    blocks = block_bytes(d_hidden, 6 * d_in + 6 * num + 2 * d_out)
    stages = STAGES * d_hidden * max(num, d_in)
    return check_memory(
        8 * (factors + stages + ARRAYS * num**2) + blocks,
        f"the HOSVD along {num} {axis}puts of a map of {d_hidden} hidden units, "
        f"with its ({num}, {num}) Gram matrix,",
        f"bring the map to fewer {axis}puts with {way_out}",
        limit,
    )
