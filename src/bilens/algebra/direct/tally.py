"""What is kept of a stream of entries: the largest, the moments, the histogram."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.direct.histogram import Histogram
from bilens.algebra.direct.moments import CentralSums
from bilens.algebra.direct.pieces import Piece
from bilens.algebra.direct.running_top import RunningTop


@dataclass(frozen=True, eq=False)
class Tally:
    """Three summaries of the same entries."""

    top: RunningTop
    sums: CentralSums
    histogram: Histogram

    @classmethod
    def empty(cls, size: int, edges: Tensor) -> Tally:
        """Return the tally of no entries, for `size` of the largest and (bins + 1,) edges."""
        return cls(
            RunningTop.empty(size, edges.device),
            CentralSums.empty(edges.device),
            Histogram.empty(edges),
        )

    def added(self, piece: Piece) -> Tally:
        """Return the tally after a further piece, in O(n log bins) for its n entries."""
        if len(piece.values) == 0:
            return self
        return Tally(
            self.top.added(piece.values, piece.locate),
            self.sums.merged(CentralSums.of(piece.values)),
            self.histogram.added(piece.values),
        )
