"""One output direction, read from one end of its matrix to the other."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.direct.exact_entries import exact_values
from bilens.algebra.direct.feature_factors import FeatureFactors
from bilens.algebra.direct.histogram import symmetric_edges
from bilens.algebra.direct.pieces import Piece, cross_pieces, self_values
from bilens.algebra.direct.record import Interactions, Kind
from bilens.algebra.direct.running_top import by_size
from bilens.algebra.direct.tally import Tally
from bilens.algebra.gram.squared_norms import no_negative, squared_norms

SPARE = 32  # candidates beyond those asked for: rounding of a block must not decide who is listed
RANGE = 8  # automatic edges of cross-interactions, in root mean squares: ≤ 1/64 lie outside


@dataclass(frozen=True, eq=False)
class Wish:
    """What to keep of the interactions of one kind.

    Attributes:
        kind: "self" or "cross".
        size: how many entries to list.
        bins: number of bins of the histogram.
        edges: (bins + 1,) edges of them in units of S; None to choose them.
    """

    kind: Kind
    size: int
    bins: int
    edges: Tensor | None


@dataclass(frozen=True, eq=False)
class Reader:
    """Reads S = unit · S' of one direction, where S' is in the scale of the feature factors."""

    factors: FeatureFactors
    own: Wish
    cross: Wish
    block: int

    def read(
        self, weight: Tensor, unit: Tensor, mass: Tensor, tick: Callable[[], None]
    ) -> tuple[Interactions, Interactions]:
        """Return the self- and the cross-interactions along one direction.

        Args:
            weight: (hidden,), as `FeatureFactors.balanced` gives it.
            unit: likewise.
            mass: ‖S'‖_F².
            tick: called after each block.
        """
        num = self.factors.num_features
        diagonal = self_values(self.factors, weight, self.block)
        own = self._empty(self.own, float(diagonal.abs().max()), unit)
        own = own.added(Piece(diagonal, lambda positions: positions * (num + 1)))

        off_diagonal = no_negative(mass - diagonal.square().sum()) / max(num * (num - 1), 1)
        cross = self._empty(self.cross, RANGE * math.sqrt(off_diagonal), unit)
        for pieces in cross_pieces(self.factors, weight, self.block):
            for piece in pieces:
                cross = cross.added(piece)
            tick()
        return (
            self._finished(self.own, own, weight, unit),
            self._finished(self.cross, cross, weight, unit),
        )

    def _empty(self, wish: Wish, largest: float, unit: Tensor) -> Tally:
        """Return an empty tally in the scale of S', whose edges are round in that of S."""
        edges = wish.edges
        if edges is None:
            edges = symmetric_edges(largest * float(unit), wish.bins, unit.device)
        return Tally.empty(wish.size + SPARE, edges.to(unit.device) / unit)

    def _finished(self, wish: Wish, tally: Tally, weight: Tensor, unit: Tensor) -> Interactions:
        """Return the record of a kind, its list computed anew and put in order."""
        keys = tally.top.keys
        first, second = keys // self.factors.num_features, keys % self.factors.num_features
        values = exact_values(self.factors, weight, first, second)
        listed = by_size(values, keys)[: wish.size]
        return Interactions(
            wish.kind,
            first[listed],
            second[listed],
            values[listed] * unit,
            tally.sums.moments(unit),
            tally.histogram.scaled(tally.histogram.edges * unit),
        )


def squared_norms_in_features(factors: FeatureFactors, weights: Tensor) -> Tensor:
    """Return ‖S'‖_F² along (num, hidden) weights, (num,), without S'.

    Math: with D'ᵀ = Y T (thin QR), S' = Y (T Q Tᵀ) Yᵀ has the norm of T Q Tᵀ, which is no wider
        than the input.
    Cost: O(features · in² + hidden² · (in + num)) time, O((in + hidden) · in) memory.
    """
    corner = factors.corner()
    return squared_norms(weights, factors.left @ corner, factors.right @ corner)
