"""The report of a sweep: how each number lies over all layers, what stands out, what is missing."""

from typing import Annotated, Literal

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

    kind: Annotated[str, "`gated silu 7168 → 2048 → 7168`"]
    count: Annotated[Count, "layers with the number"]
    quantiles: Annotated[tuple[float, float, float, float, float], "least, 5, 50 and 95%, largest"]
    middle: Annotated[float, "median of the number, or of its logarithm"]
    spread: Annotated[float | None, "robust standard deviation of it; null for too few layers"]
    outliers: Annotated[Count, "layers with |z| above the threshold"]


class Outlier(Record, frozen=True):
    """A layer whose number is far from those of its kind."""

    name: Annotated[str, "of the layer"]
    value: Annotated[float, "its number"]
    usual: Annotated[float, "median of its kind"]
    z: Annotated[float, "(x − middle) / spread"]


class SweptNumber(Record, frozen=True):
    """One number of one task over all layers."""

    task: Annotated[str, "that gives it"]
    name: Annotated[str, "of the number"]
    logarithm: Annotated[bool, "z is of its logarithm"]
    kinds: Annotated[tuple[KindNumbers, ...], "the most frequent first; none without the number"]
    expected: Annotated[float, "outliers among as many normally distributed numbers"]
    outliers: Annotated[tuple[Outlier, ...], "the farthest ten"]
    values: Annotated[tuple[float | None, ...], "of each row, six digits; null where there is none"]


class TaskCount(Record, frozen=True):
    """The rows of one task by their outcome; the four add up to the rows."""

    task: Annotated[str, "its name"]
    found: Annotated[Count, "with a result"]
    refused: Annotated[Count, "with a reason why there is none"]
    failed: Annotated[Count, "that ended in an error"]
    missing: Annotated[Count, "not done yet"]


class Reason(Record, frozen=True):
    """Why layers have no result."""

    tasks: Annotated[str, "that it is of"]
    state: Annotated[Literal["refused", "failed"], "refused, or failed with an error"]
    reason: Annotated[str, "of the first layer; of the others, but for names and numbers"]
    count: Annotated[Count, "layers without a result"]
    layers: Annotated[str, "some of them"]


class Move(Record, frozen=True):
    """A number of a layer in two sweeps."""

    name: Annotated[str, "of the layer"]
    before: Annotated[float, "in the earlier sweep"]
    after: Annotated[float, "in this one"]


class NumberChange(Record, frozen=True):
    """How one number differs between two sweeps."""

    task: Annotated[str, "that gives it"]
    name: Annotated[str, "of the number"]
    compared: Annotated[Count, "layers that have it in both"]
    same: Annotated[Count, "of these, to five digits"]
    moved: Annotated[tuple[Move, ...], "the farthest ten"]


class SweepChange(Record, frozen=True):
    """This sweep beside an earlier one."""

    baseline: Annotated[BaselineSource, "the earlier sweep"]
    alone: Annotated[str, "layers of this sweep alone, some of them; empty for none"]
    baseline_alone: Annotated[str, "of the other one, likewise"]
    numbers: Annotated[tuple[NumberChange, ...], "one entry for each number of both"]


class SweepSummary(Document, frozen=True, kw_only=True):
    """The summary of a sweep over all layers."""

    kind: Annotated[Literal["sweep_report"], "of the document"] = "sweep_report"
    model: Annotated[LayeredModel, "what was read"]
    options: Annotated[SweepOptions, "of the sweep"]
    names: Annotated[tuple[str, ...], "of the rows"]
    kinds: Annotated[tuple[str, ...], "of layers, the most frequent first"]
    kind_of_row: Annotated[tuple[Count, ...], "position in `kinds`"]
    tasks: Annotated[tuple[TaskCount, ...], "how many rows each task has done"]
    reasons: Annotated[tuple[Reason, ...], "the most frequent first"]
    threshold: Annotated[float, "of |z|"]
    numbers: Annotated[tuple[SweptNumber, ...], "one entry for each number"]
    verdict: Annotated[tuple[Finding, ...], "the rules over all layers, and how they ended"]
    conditions: Annotated[tuple[JudgedCondition, ...] | None, "of `--fail-on`, or null"]
    difference: Annotated[SweepChange | None, "null without another sweep"] = None
    source: Annotated[Source, "the model"]
    data: Annotated[DataOrigin | None, "where the inputs come from; null without"] = None
    reproduce: Annotated[Run, "what it takes to run the same again"]

    def __post_init__(self) -> None:
        each = [self.names, self.kind_of_row, *(one.values for one in self.numbers)]
        require({len(one) for one in each} == {self.model.num_layers}, "a row lacks a value")
        require(max(self.kind_of_row) < len(self.kinds), "a row is of no kind")

    @property
    def failed(self) -> bool:
        """Whether a condition failed, or a rule did."""
        ends = [one.outcome for one in self.verdict]
        return "fail" in ends or any(one.failed for one in self.conditions or ())
