"""The report of a sweep: how each number lies over all layers, what stands out, what is missing."""

from typing import Literal

from bilens.records.base import Count, Document, Record, require
from bilens.records.common import DataOrigin, Finding, JudgedCondition, Run, Source
from bilens.records.layer_audit import BaselineSource, LayeredModel
from bilens.records.sweep import SweepOptions

Five = tuple[float, float, float, float, float]  # least, 5 %, median, 95 % and largest


class Histogram(Record, frozen=True):
    """How many layers have a number in each bin."""

    edges: tuple[float, ...]  # one more than `counts`
    counts: tuple[Count, ...]
    below: Count = 0  # layers left of the first edge
    above: Count = 0  # layers right of the last one


class KindNumbers(Record, frozen=True):
    """One number over all layers of a kind."""

    kind: str  # `gated silu 7168 → 2048 → 7168`
    count: Count  # layers with the number
    quantiles: Five
    middle: float  # median of the number, or of its logarithm
    spread: float | None  # robust standard deviation of the same; null for too few layers
    outliers: Count  # layers with |z| above the threshold


class Outlier(Record, frozen=True):
    """A layer whose number is far from those of its kind."""

    name: str
    kind: str
    value: float
    z: float  # (x − middle) / spread


class SweptNumber(Record, frozen=True):
    """One number of one task over all layers."""

    task: str
    name: str
    logarithm: bool  # z is of its logarithm
    kinds: tuple[KindNumbers, ...]  # the most frequent first; none where no layer has the number
    histogram: Histogram | None  # over all kinds; null where no two layers differ
    expected: float  # outliers among as many normally distributed numbers
    outliers: tuple[Outlier, ...]  # the farthest ten
    values: tuple[float | None, ...]  # of each row, four digits; null where there is none


class TaskCount(Record, frozen=True):
    """What came of one task; the four add up to the rows."""

    task: str
    found: Count
    refused: Count
    failed: Count
    missing: Count  # not done yet


class Reason(Record, frozen=True):
    """Why layers have no result of a task."""

    task: str
    state: str  # `refused` or `failed`
    reason: str  # of the first layer; of the others, but for names and numbers
    count: Count
    names: tuple[str, ...]  # the first five


class Grid(Record, frozen=True):
    """Where each row stands: its layer across, what it is in the layer downwards."""

    layers: tuple[Count, ...]  # numbers of the columns
    lines: tuple[str, ...]  # names with * for the number of the layer
    cells: tuple[tuple[Count, Count], ...]  # column and line of each row


class Move(Record, frozen=True):
    name: str
    before: float
    after: float


class NumberChange(Record, frozen=True):
    """How one number differs between two sweeps."""

    task: str
    name: str
    compared: Count  # layers that have it in both
    same: Count  # of these, to six digits
    quantiles: Five | None  # of the differences; null where nothing is compared
    histogram: Histogram | None  # null also where nothing differs
    moved: tuple[Move, ...]  # the farthest ten


class SweepChange(Record, frozen=True):
    """This sweep beside an earlier one."""

    baseline: BaselineSource
    alone: tuple[str, ...]  # layers of this sweep alone, the first five
    num_alone: Count
    baseline_alone: tuple[str, ...]  # of the other one, likewise
    num_baseline_alone: Count
    numbers: tuple[NumberChange, ...]


class SweepSummary(Document, frozen=True, kw_only=True):
    """What a sweep found, of all layers together."""

    kind: Literal["sweep_report"] = "sweep_report"
    model: LayeredModel
    options: SweepOptions
    num_rows: Count
    kinds: tuple[str, ...]  # of layers, the most frequent first
    kind_of_row: tuple[Count, ...]  # position in `kinds`
    tasks: tuple[TaskCount, ...]
    reasons: tuple[Reason, ...]  # the most frequent first
    threshold: float  # of |z|
    numbers: tuple[SweptNumber, ...]
    grid: Grid
    verdict: tuple[Finding, ...]  # the rules over all layers, and how they ended
    conditions: tuple[JudgedCondition, ...] | None  # those of `--fail-on`; null without any
    difference: SweepChange | None  # null without another sweep
    source: Source  # the model
    data: DataOrigin | None = None
    reproduce: Run

    def __post_init__(self) -> None:
        each = [self.kind_of_row, self.grid.cells, *(one.values for one in self.numbers)]
        require({len(one) for one in each} == {self.num_rows}, "there is not one value for a row")
        shape = len(self.grid.layers), len(self.grid.lines)
        require(all(x < shape[0] and y < shape[1] for x, y in self.grid.cells), "a row is off grid")

    @property
    def failed(self) -> bool:
        """Whether a condition failed, or a rule did."""
        ends = [one.outcome for one in self.verdict]
        return "fail" in ends or any(one.failed for one in self.conditions or ())
