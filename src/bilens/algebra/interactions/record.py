"""The records of direct interactions: what is known of a matrix that was never held whole."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields, is_dataclass, replace
from typing import Any, Literal, TypeVar

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.interactions.streaming_statistics import Histogram, Moments, no_moments
from bilens.base.errors import ShapeError, optional_package
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result

Kind = Literal["self", "cross"]
MULTIPLICITY: dict[Kind, int] = {"self": 1, "cross": 2}  # how often S holds the entry
Record = TypeVar("Record")


@dataclass(frozen=True, eq=False)
class Interactions:
    """Entries of one kind, self (m = n) or cross (m < n, each pair once): largest, statistics."""

    # Values are *entries* S[m, n] of the symmetric matrix. With z the feature activations the
    # output is Σ_m S[m, m] z_m² + Σ_{m<n} 2 S[m, n] z_m z_n + ...: the *coefficient* of z_m z_n is
    # the entry for a self-interaction and twice the entry for a cross-interaction.

    kind: Kind
    first: Tensor  # (..., k) int64, feature m
    second: Tensor  # (..., k) int64, feature n ≥ m
    # (..., k) float64, by falling size, from the factors; the smaller (m, n) first where sizes are
    # equal. In units of the output per squared unit of the features.
    values: Tensor
    moments: Moments  # of all entries of the kind
    histogram: Histogram  # likewise

    to_frame = frame("values", "output", "place")

    @property
    def coefficients(self) -> Tensor:
        return self.values * MULTIPLICITY[self.kind]


@frozen_result("norm", "self_share", "cross_share", "status")
class DirectInteractions:
    """S = DᵀQD for one output direction, or for a batch of them (`result[c]` is the one of row c).

    Everything is float64. The output along the direction is
    f(Dz + b)·u = zᵀSz + linear·z + constant.

    Attributes:
        self_interactions: the diagonal of S.
        cross_interactions: the entries above the diagonal.
        norm: (...), ‖S‖_F over all features · features entries, from the factors; nothing but
            rounding where their terms cancel, unlike the moments.
        linear: (..., features).
        constant: (...).
        status: one for a single direction, a tuple for a batch. Where it is not OK, every number
            is NaN, every feature −1 and every count 0.
    """

    self_interactions: Interactions
    cross_interactions: Interactions
    norm: Tensor
    linear: Tensor
    constant: Tensor
    status: Status | tuple[Status, ...]

    def to_frame(self) -> Any:
        """Return the largest entries of S of both kinds as a DataFrame of pandas.

        Raises: MissingExtraError if pandas is not installed.
        """
        kinds = [self.self_interactions, self.cross_interactions]
        pandas = optional_package("pandas", "tables", "to_frame")
        return pandas.concat([one.to_frame().assign(kind=one.kind) for one in kinds])

    def __len__(self) -> int:
        if not isinstance(self.status, tuple):
            raise ShapeError("these are the interactions of one direction; a batch has a length.")
        return len(self.status)

    def __getitem__(self, index: int) -> DirectInteractions:
        if not isinstance(self.status, tuple):
            raise ShapeError("these are the interactions of one direction; a batch has an index.")
        single = combined([self], lambda tensors: tensors[0][index])
        return replace(single, status=self.status[index])

    @property
    def self_share(self) -> Tensor:
        """Σ S[m, m]² over the listed self-interactions / ‖S‖_F², (...); 0 if S is zero."""
        return self._share(self.self_interactions)

    @property
    def cross_share(self) -> Tensor:
        """2 Σ S[m, n]² over the listed cross-interactions / ‖S‖_F², (...); 0 if S is zero."""
        return self._share(self.cross_interactions)

    def features(self) -> Tensor:
        """Return the features that appear in either list of one direction, rising, int64.

        Raises: ShapeError if this is a batch; use `result[c].features()`.
        """
        if isinstance(self.status, tuple):
            raise ShapeError("features works on one direction: use result[c].features().")
        lists = (self.self_interactions, self.cross_interactions)
        listed = torch.cat([part for kind in lists for part in (kind.first, kind.second)])
        distinct: Tensor = torch.unique(listed[listed >= 0])
        return distinct

    def _share(self, interactions: Interactions) -> Tensor:
        divisor = torch.where(self.norm == 0, torch.inf, self.norm)
        relative = interactions.values / divisor[..., None]
        return relative.square().sum(dim=-1) * MULTIPLICITY[interactions.kind]


def combined(records: Sequence[Record], combine: Callable[[list[Tensor]], Tensor]) -> Record:
    """Return a record whose tensors, in nested records too, are combined from those given."""
    changes: dict[str, Any] = {}
    for field in fields(records[0]):  # type: ignore[arg-type]
        parts = [getattr(record, field.name) for record in records]
        if isinstance(parts[0], Tensor):
            changes[field.name] = combine(parts)
        elif is_dataclass(parts[0]):
            changes[field.name] = combined(parts, combine)
    return replace(records[0], **changes)  # type: ignore[type-var]


def unread(kind: Kind, size: int, bins: int, device: torch.device) -> Interactions:
    """Return a list of `size` entries, and a histogram, of a matrix that could not be read."""
    gap = torch.full((), torch.nan, dtype=torch.float64, device=device)
    nowhere = torch.full((size,), -1, device=device)
    none = torch.zeros((), dtype=torch.int64, device=device)
    histogram = Histogram(gap.expand(bins + 1), none.expand(bins), none, none)
    return Interactions(kind, nowhere, nowhere, gap.expand(size), no_moments(device), histogram)
