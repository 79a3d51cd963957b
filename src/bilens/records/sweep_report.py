"""The report of a sweep: how each number lies over all layers, what stands out, what is missing."""

from typing import Literal

from bilens.records.base import Count, Document, Record, require
from bilens.records.common import (
    DataOrigin,
    Finding,
    JudgedCondition,
    LayeredModel,
    Run,
    Source,
)
from bilens.records.layer_readings import BaselineSource
from bilens.records.sweep import SweepOptions


class KindNumbers(Record, frozen=True):
    """One number over all layers of a kind."""

    kind: str  # `gated silu 7168 → 2048 → 7168`
    count: Count  # layers with the number
    quantiles: tuple[float, float, float, float, float]  # least, 5 %, median, 95 % and largest
    middle: float  # median of the number, or of its logarithm
    spread: float | None  # robust standard deviation of the same; null for too few layers
    outliers: Count  # layers with |z| above the threshold


class Outlier(Record, frozen=True):
    """A layer whose number is far from those of its kind."""

    name: str
    value: float
    usual: float  # median of its kind
    z: float  # (x − middle) / spread


class SweptNumber(Record, frozen=True):
    """One number of one task over all layers."""

    task: str
    name: str
    logarithm: bool  # z is of its logarithm
    kinds: tuple[KindNumbers, ...]  # the most frequent first; none where no layer has the number
    expected: float  # outliers among as many normally distributed numbers
    outliers: tuple[Outlier, ...]  # the farthest ten
    values: tuple[float | None, ...]  # of each row, six digits; null where there is none


class TaskCount(Record, frozen=True):
    """The rows of one task by their outcome; the four add up to the rows."""

    task: str
    found: Count
    refused: Count
    failed: Count
    missing: Count  # not done yet


class Reason(Record, frozen=True):
    """Why layers have no result."""

    tasks: str
    state: Literal["refused", "failed"]
    reason: str  # of the first layer; of the others, but for names and numbers
    count: Count
    layers: str  # some of them


class Move(Record, frozen=True):
    """A number of a layer in two sweeps."""

    name: str
    before: float
    after: float


class NumberChange(Record, frozen=True):
    """How one number differs between two sweeps."""

    task: str
    name: str
    compared: Count  # layers that have it in both
    same: Count  # of these, to five digits
    moved: tuple[Move, ...]  # the farthest ten


class SweepChange(Record, frozen=True):
    """This sweep beside an earlier one."""

    baseline: BaselineSource
    alone: str  # layers of this sweep alone, some of them; empty for none
    baseline_alone: str  # of the other one, likewise
    numbers: tuple[NumberChange, ...]


class SweepSummary(Document, frozen=True, kw_only=True):
    """The summary of a sweep over all layers."""

    kind: Literal["sweep_report"] = "sweep_report"
    model: LayeredModel
    options: SweepOptions
    names: tuple[str, ...]  # of the rows
    kinds: tuple[str, ...]  # of layers, the most frequent first
    kind_of_row: tuple[Count, ...]  # position in `kinds`
    tasks: tuple[TaskCount, ...]
    reasons: tuple[Reason, ...]  # the most frequent first
    threshold: float  # of |z|
    numbers: tuple[SweptNumber, ...]
    verdict: tuple[Finding, ...]  # the rules over all layers, and how they ended
    conditions: tuple[JudgedCondition, ...] | None  # those of `--fail-on`; null without any
    difference: SweepChange | None = None  # null without another sweep
    source: Source  # the model
    data: DataOrigin | None = None
    reproduce: Run

    def __post_init__(self) -> None:
        each = [self.names, self.kind_of_row, *(one.values for one in self.numbers)]
        require({len(one) for one in each} == {self.model.num_layers}, "a row lacks a value")
        require(max(self.kind_of_row) < len(self.kinds), "a row is of no kind")

    @property
    def failed(self) -> bool:
        """Whether a condition failed, or a rule did."""
        ends = [one.outcome for one in self.verdict]
        return "fail" in ends or any(one.failed for one in self.conditions or ())
