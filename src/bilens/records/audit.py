"""The audit of a model: what every audit says, and the readings that this one is made of."""

from __future__ import annotations

from typing import Annotated, Literal, get_args

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
from bilens.records.inventory import Inventory
from bilens.records.layer_readings import Difference, LayerReadings
from bilens.records.performance import Performance

ReadAs = Literal["classes", "layers", "columns"]


class Audit(Document, frozen=True, kw_only=True):
    """The audit of a model: its readings, how the rules ended on them, and the decision."""

    kind: Annotated[Literal["audit"], "of the document"] = "audit"
    schema_version: Annotated[Literal[2], "1 had three kinds of audits"] = 2  # type: ignore[assignment]
    read_as: Annotated[ReadAs, "which of the three readings it is; rules are chosen by it"]
    passed: Annotated[bool | None, "null where not decided, or nothing is vouched for"] = None
    model: Annotated[ModelFacts, "what was read"]
    coverage: Annotated[Coverage | None, "what share of the parameters was read"] = None
    verdict: Annotated[tuple[Finding, ...], "the rules and how they ended"]
    conditions: Annotated[tuple[JudgedCondition, ...] | None, "of `--fail-on`, or null"] = None
    decision: Annotated[Decision | None, "what may be done with it; null if undecided"] = None
    exactness: Annotated[tuple[Exactness, ...], "of one exact layer against its forward pass"] = ()
    inventory: Annotated[Inventory | None, "what it is, read without running it"] = None
    performance: Annotated[Performance | None, "worth of predictions; null without data"] = None
    # how the model is read: one of these three is there
    classes: Annotated[ClassReadings | None, "a classifier of one exact layer, by classes"] = None
    layers: Annotated[LayerReadings | None, "any other model, layer by layer"] = None
    columns: Annotated[ColumnReadings | None, "one exact layer with columns, by columns"] = None
    inputs: Annotated[GivenInputs | None, "what given inputs add; null without"] = None
    overfitting: Annotated[Overfitting | None, "of a classifier of images; null for others"] = None
    triggers: Annotated[Triggers | None, "null likewise"] = None
    guarantees: Annotated[Guarantees | None, "of classes; null if formula and model differ"] = None
    difference: Annotated[Difference | None, "changes from the baseline; null without"] = None
    column_changes: Annotated[ColumnChanges | None, "likewise of columns and answers"] = None
    null_samples: Annotated[Count, "random draws behind every null interval; 0 where there is none"]
    seed: Annotated[Integer, "of the draws, and of random inputs"]
    source: Annotated[Source, "where the weights come from"]
    data: Annotated[DataOrigin | None, "which data `performance` is of; null without data"]
    text: Annotated[TextOrigin | None, "that the layers were fitted on; null without"] = None
    reproduce: Annotated[Run, "what it takes to run the same again"]
    people: Annotated[People | None, "what was said of the model; null where nothing was"] = None

    def readings(self) -> tuple[Reading, ...]:
        """Return the readings that are there, in the order of a page."""
        parts = (getattr(self, name) for name in self.__struct_fields__)
        return tuple(one for one in parts if isinstance(one, Reading))

    def __post_init__(self) -> None:
        there = [name for name in get_args(ReadAs) if getattr(self, name) is not None]
        require(
            there == [self.read_as], f"{self.read_as} is to be there, and no other of the three"
        )
        some = self.layers is None or self.layers.readings or self.difference or self.inventory
        require(bool(some), "layers is empty")
        exact = self.read_as == "layers" or len(self.exactness) > 0
        require(exact, "exactness is empty")
        for reading in self.readings():
            reading.check_fits(self.model)
