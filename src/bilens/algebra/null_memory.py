"""How many directions of a rotation null are solved together, and whether one fits at all."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_memory, memory_limit as allowed_memory

CHUNK_BYTES = 256 * 2**20  # more of them together are no faster


@dataclass(frozen=True)
class Demand:
    """What a rotation null holds in memory, in float64 numbers.

    Attributes:
        sizes: of the map.
        num: directions.
        num_samples: rotations.
        width_before: width before the embedding; None where there is none.
        localised: whether eigenvectors are needed.
    """

    sizes: FactorSizes
    num: int
    num_samples: int
    width_before: int | None
    localised: bool

    @property
    def d_before(self) -> int:
        """Width of the basis in which the spectra are read."""
        return self.sizes.d_in if self.width_before is None else self.width_before

    @property
    def width(self) -> int:
        """Width of the matrices that are solved."""
        return min(self.sizes.d_in, self.d_before, 2 * self.sizes.d_hidden)

    def fixed(self) -> int:
        """Return the bytes that the number of directions at a time does not change."""
        d_out, hidden, d_in = self.sizes
        factors = (d_out + 2 * d_in) * hidden  # in float64
        weights = self.num * (d_out + 2 * hidden)
        frame = d_in * min(hidden, d_in)  # three more while it is drawn
        branch = hidden * min(d_in, self.d_before)  # right is turned, both are stacked and factored
        turned = max(3 * frame, (7 if self.width == 2 * hidden else 2) * branch)
        embedding = 0 if self.width_before is None else branch + 3 * d_in * self.width_before
        results = 10 * self.num_samples * self.num
        return 8 * (factors + weights + frame + turned + embedding + results)

    def each(self) -> int:
        """Return the bytes of one of the directions that are solved together.

        (width, hidden) once where the matrix is formed, and (width, width) at most four times,
        there or in the solver.
        """
        vectors = 4 * (self.width + self.d_before) if self.localised else 0
        return 8 * (self.width * self.sizes.d_hidden + 4 * self.width**2 + vectors)

    def peak(self) -> int:
        """Return the bytes where there is room for as many directions as are solved together."""
        return self.fixed() + min(self.num, max(CHUNK_BYTES // self.each(), 1)) * self.each()


def plan_chunk(demand: Demand, limit: int | str | None) -> int:
    """Return how many directions are solved together.

    Raises:
        MemoryLimitError: If not even one fits into the memory allowed.
    """
    check_memory(
        demand.fixed() + demand.each(),
        f"a rotation null of {demand.num} directions of width {demand.width}",
        "read fewer directions at a time",
        limit,
    )
    room = min(CHUNK_BYTES, allowed_memory(limit) - demand.fixed())
    return min(max(room // demand.each(), 1), demand.num)
