"""What a rule is: what it judges, on which evidence, and how its numbers are shown."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from bilens.records.audit import ClassReading, Overfitting, Triggers, TruncationPoint
from bilens.records.difference import LayerDifference
from bilens.records.layer_audit import LayerReading
from bilens.records.table_audit import OutputEffects, TableScore
from bilens.records.verdict import Exactness, Outcome, Share, Value

Kind = Literal["audit", "layer_audit", "table"]
Scope = Literal["", "weights", "fit", "map", "rounding"]
# How a number is shown, and so of which type it is: `count` and `whole` as a whole number, the
# first one being one; `text` and `mode` as words; `points` in percentage points.
Format = Literal[
    "count",
    "whole",
    "text",
    "mode",
    "percent",
    "percent0",
    "points",
    "fixed1",
    "fixed2",
    "fixed3",
    "fixed5",
    "quantity",
    "scientific",
]
Judged: TypeAlias = "tuple[Outcome, Mapping[str, Value]] | None"
NAMED = 5  # layers that a sentence names


@dataclass(frozen=True)
class Evidence:
    """Everything that rules may judge; what is missing leaves out the rules on it."""

    exactness: tuple[Exactness, ...] = ()
    classes: tuple[ClassReading, ...] = ()
    accuracy: Share | None = None
    truncation: tuple[TruncationPoint, ...] = ()
    enough: int = 0  # the fewest eigenvectors that keep the accuracy; one of the curve's points
    overfitting: Overfitting | None = None
    triggers: Triggers | None = None
    output_names: tuple[str, ...] = ()
    layers: tuple[LayerReading, ...] = ()
    changes: tuple[LayerDifference, ...] = ()
    effects: tuple[OutputEffects, ...] = ()
    score: TableScore | None = None
    seen_rows: bool = False  # the model was trained on the rows

    @property
    def whole(self) -> tuple[LayerReading, ...]:
        """The layers that can be read."""
        return tuple(layer for layer in self.layers if layer.broken is None)


def no_variant(_values: Mapping[str, Value]) -> str:
    return ""


@dataclass(frozen=True)
class Rule:
    """One rule of a verdict; its sentences are in the catalogue as rule.SENTENCES.OUTCOME."""

    id: str
    documents: tuple[Kind, ...]  # in whose verdicts it stands
    values: Mapping[str, Format]  # the numbers of its sentence
    judge: Callable[[Evidence], Judged]  # None where there is nothing to judge
    number: str | None = "value"  # which of them conditions compare; None: none can be asked for
    bad: Literal["<", ">"] | None = None  # the side of `threshold` on which it fails by name
    needs: Literal["data", "baseline"] | None = None
    scope: Scope = ""  # what it holds for; "" where the sentence says so itself
    sentences: str = ""  # key of its sentences where another rule has its id
    variant: Callable[[Mapping[str, Value]], str] = no_variant  # behind the key of a sentence

    def sentence_key(self, outcome: str, values: Mapping[str, Value]) -> str:
        return f"rule.{self.sentences or self.id}.{outcome}{self.variant(values)}"


def named(names: Sequence[str]) -> str:
    """Return some names, and how many more there are."""
    more = [f"+{len(names) - NAMED}"] if len(names) > NAMED else []
    return ", ".join([*names[:NAMED], *more])
