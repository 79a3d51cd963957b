"""The audit of a model: what every audit says, and the readings that this one is made of."""

from __future__ import annotations

from typing import Literal, get_args

from bilens.records.base import Count, Document, Integer, require
from bilens.records.class_readings import ClassReadings
from bilens.records.column_readings import ColumnChanges, ColumnReadings
from bilens.records.common import (
    DataOrigin,
    Exactness,
    Finding,
    JudgedCondition,
    ModelFacts,
    Reading,
    Run,
    Source,
    TextOrigin,
)
from bilens.records.decision import Coverage, Decision
from bilens.records.given_inputs import GivenInputs
from bilens.records.guarantees import Guarantees
from bilens.records.history import People
from bilens.records.image_warnings import Overfitting, Triggers
from bilens.records.layer_readings import Difference, LayerReadings
from bilens.records.performance import Performance

ReadAs = Literal["classes", "layers", "columns"]


class Audit(Document, frozen=True, kw_only=True):
    """The audit of a model: its readings, how the rules ended on them, and the decision."""

    kind: Literal["audit"] = "audit"
    schema_version: Literal[2] = 2  # type: ignore[assignment]  # 1 had three kinds of audits
    read_as: ReadAs  # which of the three readings of a model this is, that rules are chosen by
    passed: bool | None = None  # null where not decided, or nothing is vouched for
    model: ModelFacts  # what was read
    coverage: Coverage | None = None  # what share of the parameters was read
    verdict: tuple[Finding, ...]  # the rules and how they ended
    conditions: tuple[JudgedCondition, ...] | None = None  # of `--fail-on`; null without any
    decision: Decision | None = None  # what may be done with it; null where it was not decided
    # of one exact layer: the reading against the forward pass, for each precision; else empty
    exactness: tuple[Exactness, ...] = ()
    performance: Performance | None = None  # what predictions are worth; null without data
    # how the model is read: one of these three is there
    classes: ClassReadings | None = None  # a classifier of one exact layer, class by class
    layers: LayerReadings | None = None  # any other model, layer by layer
    columns: ColumnReadings | None = None  # one exact layer with named columns, column by column
    inputs: GivenInputs | None = None  # what the inputs given add to the weights; null without
    overfitting: Overfitting | None = None  # of a classifier of images; null for others
    triggers: Triggers | None = None  # null likewise
    guarantees: Guarantees | None = None  # of classes; null where formula and model disagree
    difference: Difference | None = None  # what changed from the baseline; null without one
    column_changes: ColumnChanges | None = None  # likewise of a table, in columns and answers
    null_samples: Count  # random draws behind every null interval; 0 where there is none
    seed: Integer  # of the draws, and of random inputs
    source: Source  # where the weights come from
    data: DataOrigin | None  # which data `performance` is of; null without data
    text: TextOrigin | None = None  # that the layers were fitted on; null without
    reproduce: Run  # what it takes to run the same again
    people: People | None = None  # what was said of the model; null where nothing was

    def readings(self) -> tuple[Reading, ...]:
        """Return the readings that are there, in the order of a page."""
        parts = (getattr(self, name) for name in self.__struct_fields__)
        return tuple(one for one in parts if isinstance(one, Reading))

    def __post_init__(self) -> None:
        there = [name for name in get_args(ReadAs) if getattr(self, name) is not None]
        require(
            there == [self.read_as], f"{self.read_as} is to be there, and no other of the three"
        )
        some = self.layers is None or self.layers.readings or self.difference is not None
        require(bool(some), "layers is empty")
        exact = self.read_as == "layers" or len(self.exactness) > 0
        require(exact, "exactness is empty")
        for reading in self.readings():
            reading.check_fits(self.model)
