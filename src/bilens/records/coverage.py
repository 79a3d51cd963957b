"""What share of a model's parameters was read, and how it is known that they were read rightly."""

from __future__ import annotations

from bilens.records.base import Count, Record, require


class CoverageGroup(Record, frozen=True):
    """Tensors whose names differ in numbers alone, such as the same matrix of each layer."""

    name: str  # numbers that differ are written `*`
    tensors: Count
    parameters: Count
    exact: Count  # parameters in layers that are read exactly
    approximate: Count  # parameters in layers that are read through an approximation
    # why the rest is not read: `unread` (no layer that can be read is made of it), `refused` (R² is
    # too low), `broken` (not finite); empty where all is read
    reason: str


class Coverage(Record, frozen=True):
    """How many parameters of a model were read, in all its tensors."""

    parameters: Count
    exact: Count  # in layers that are read exactly
    approximate: Count  # in layers that are read through their quadratic approximation
    unread: Count
    groups: tuple[CoverageGroup, ...]  # by falling number of parameters that are not read
    # how it is known which tensor is what: `known` (the format says it), `guessed` (from names and
    # shapes) or `said` (by the caller)
    layout: str
    checked_against: str  # what the layers were compared with; empty where nothing could be
    error: float | None  # the largest difference there, over the largest output
    # whether what was read, one behind the other, is all that the model computes between input and
    # output; false where other operations stand between or around (attention, norms, reshapes)
    connected: bool = False

    def __post_init__(self) -> None:
        read = self.exact + self.approximate
        require(read + self.unread == self.parameters, "the parts of coverage do not add up")

    @property
    def share(self) -> float:
        """The share of the parameters that was read, exactly or not."""
        return 1 - self.unread / self.parameters if self.parameters else 0.0

    @property
    def whole(self) -> bool:
        """Whether all that the model computes was read, of a layout that is known, and compared."""
        known = self.layout == "known" and self.checked_against != ""
        return self.unread == 0 and known and self.connected
