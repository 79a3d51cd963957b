"""The record of the largest interactions of many output directions at once."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.direct.record import MULTIPLICITY, Kind
from bilens.algebra.status import Status


@dataclass(frozen=True, eq=False)
class ListedEntries:
    """The largest entries of one kind, and mean and spread of all: those of `Interactions`.

    Attributes:
        kind: "self" (m = n) or "cross" (m < n, each pair once).
        first: (..., k) int64, feature m.
        second: (..., k) int64, feature n ≥ m.
        values: (..., k) float64, entries S[m, n] by falling size.
        mean: (...), over all entries of this kind.
        std: (...), divided by their number.
        count: of all entries of this kind.
    """

    kind: Kind
    first: Tensor
    second: Tensor
    values: Tensor
    mean: Tensor
    std: Tensor
    count: int

    @property
    def coefficients(self) -> Tensor:
        """The coefficient of z_m z_n of each listed entry, (..., k)."""
        return self.values * MULTIPLICITY[self.kind]


@dataclass(frozen=True, eq=False)
class ListedInteractions:
    """S = DᵀQD for a batch of output directions: its largest entries and its moments.

    Everything is float64. `direct_interactions` gives the same lists and, at a cost of all
    entries, histograms and higher moments too.

    Attributes:
        self_interactions: the diagonal of S.
        cross_interactions: the entries above the diagonal.
        norm: (num,), ‖S‖_F.
        linear: (num, features), the linear term of the decoder's bias.
        constant: (num,).
        status: one for each direction. Where it is not OK, every number is NaN, every feature −1.
    """

    self_interactions: ListedEntries
    cross_interactions: ListedEntries
    norm: Tensor
    linear: Tensor
    constant: Tensor
    status: tuple[Status, ...]

    def __len__(self) -> int:
        return len(self.status)
