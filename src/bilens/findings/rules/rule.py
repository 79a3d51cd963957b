"""The rules of an audit: each measures evidence, ends in an outcome and shows its numbers."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any, Literal, TypeAlias

from bilens.records.audit import ReadAs
from bilens.records.class_readings import ClassReading, TruncationPoint
from bilens.records.column_readings import (
    CellConversion,
    ColumnChanges,
    OutputEffects,
    TableReading,
)
from bilens.records.common import Exactness, Finding, Outcome, Value
from bilens.records.decision import Coverage
from bilens.records.given_inputs import GivenInputs
from bilens.records.image_warnings import Overfitting, Triggers
from bilens.records.layer_readings import LayerDifference, LayerReading, WordTrial
from bilens.records.performance import Classification, Performance
from bilens.records.tensor_changes import WholeDifference
from bilens.records.view import Format

InputKind = Literal["images", "table", "text"]
Scope = Literal["", "weights", "map", "rounding"]
Group = Literal["reading", "model", "use"]  # is it read rightly, is it sound, what is it good for
SEVERITY: Sequence[Outcome] = ("pass", "info", "warn", "fail")
EXTREME = "extreme"  # the worst number of all cases, where the worst outcome is another's
# Of a case that rests on an input that nobody gave: how it would have ended. It neither passes
# nor asks for caution.
ASSUMED = "assumed"
# What the numbers of some cases rest on, which no condition passes by: `assumed`, an input that
# nobody gave, or `units`, that all inputs have deviation 1, where maps are compared.
GROUND = "ground"
# Why a number is not of all that it should be of, or in whose units it is: it does not pass, nor
# does a condition on it.
OPEN = "open"
HEAVY = 0.1  # of the variance, in one row: beyond it the rows do not speak for others
GUESS, USUAL = 1, 6  # rank of a rule whose caution means: do not use; of most rules
Values: TypeAlias = "Mapping[str, Value]"


@dataclass(frozen=True)
class Evidence:
    """Everything that rules may judge; what is missing leaves out the rules on it."""

    exactness: tuple[Exactness, ...] = ()
    classes: tuple[ClassReading, ...] = ()
    twins: tuple[tuple[str, str], ...] | None = None  # classes whose scores differ by a constant
    truncation: tuple[TruncationPoint, ...] = ()
    enough: int = 0  # the fewest eigenvectors that keep the accuracy; one of the curve's points
    overfitting: Overfitting | None = None
    triggers: Triggers | None = None
    output_names: tuple[str, ...] = ()
    layers: tuple[LayerReading, ...] = ()
    others: tuple[int, tuple[str, ...]] = (0, ())  # tensors of no layer, and those not finite
    changes: tuple[LayerDifference, ...] = ()
    around: str = ""  # how what is around the layers is not that of the baseline
    whole_change: WholeDifference | None = None
    trial: WordTrial | None = None
    column_change: ColumnChanges | None = None
    effects: tuple[OutputEffects, ...] = ()
    # the one or two columns of a table that make most of the variance of all outputs, and how much
    largest_part: tuple[tuple[str, ...], float] | None = None
    columns_in: str = ""  # the `rows` whose units effects are in, or `raw`, where none are known
    coverage: Coverage | None = None
    performance: Performance | None = None  # on data
    inputs: GivenInputs | None = None  # what they add to the weights
    reading: TableReading | None = None  # of the table that the model was trained on
    done: tuple[CellConversion, ...] | None = None  # to the table of the rows
    input_kind: str = ""  # that the model or its data say; empty where nothing does

    @property
    def answers(self) -> Classification | None:
        return None if self.performance is None else self.performance.classification

    @property
    def readable(self) -> tuple[LayerReading, ...]:
        """The layers that can be read."""
        return tuple(layer for layer in self.layers if layer.broken is None)

    @property
    def assumed(self) -> frozenset[str]:
        """The layers that are read under an input that was assumed, not given."""
        fits = {layer.name: layer.fit for layer in self.layers}
        return frozenset(name for name, fit in fits.items() if fit is not None and not fit.seen)


Measure: TypeAlias = Callable[[Evidence], Iterable[Values]]


@dataclass(frozen=True)
class Rule:
    """One rule of a verdict; its sentences are in the catalogue as rule.SENTENCES.OUTCOME.

    Beside them stand .risk, what it means for who uses the model, and .next, what to do about it.
    """

    id: str
    # Yields the numbers of each case, nothing where there is nothing to judge; told is the worst
    # outcome, and of the cases that end so the one with the worst number.
    # A case may have a `threshold` of its own, and an `outcome` where no threshold decides it.
    measure: Measure
    readings: tuple[ReadAs, ...]  # of models that are read as these
    values: Mapping[str, Format]  # the numbers of its sentence
    group: Group  # which question of a reader it answers
    number: str | None = "value"  # which of them conditions compare; None: none can be asked for
    threshold: float = 0
    bad: Literal["<", ">"] | None = None  # the side of `threshold` on which it fails by name
    usual: Outcome = "pass"  # how it ends
    beyond: Outcome = "warn"  # how it ends on the bad side
    needs: Literal["data", "baseline"] | None = None
    scope: Scope = ""  # what it holds for; "" where the sentence says so itself
    sentences: str = ""  # key of its sentences where another rule has its id
    variant: Callable[[Values], str] = lambda _values: ""  # behind the key of a sentence
    inputs: InputKind | None = None  # it holds for these alone; None: whatever the inputs are
    rank: int = USUAL  # its place among the risks where it ends with caution, the largest first

    def judge(self, evidence: Evidence) -> Finding | None:
        if self.inputs is not None and evidence.input_kind != self.inputs:
            return None
        cases = [{"threshold": self.threshold, **case} for case in self.measure(evidence)]
        grounds = [case.pop(GROUND, "assumed" if case.get(ASSUMED) else "") for case in cases]
        for case in cases:
            if case.pop(ASSUMED, False):
                case |= {ASSUMED: self.ended(case), "outcome": "info"}
        if not cases:
            return None
        outcome = max(map(self.ended, cases), key=SEVERITY.index)
        told = [case for case in cases if self.ended(case) == outcome]
        worst = min if self.bad == "<" else max
        case = told[0] if self.bad is None else worst(told, key=itemgetter(self.number))
        values = {
            name: case[name] for name in (*self.values, ASSUMED, OPEN) if case.get(name) is not None
        }
        if self.bad is not None and len(told) < len(cases):
            values[EXTREME] = worst(cases, key=itemgetter(self.number))[str(self.number)]
        if any(grounds):
            values[GROUND] = next(each for each in ("assumed", "units") if each in grounds)
        return Finding(self.id, outcome, values)

    def ended(self, case: Values) -> str:
        return str(case.get("outcome", self.beyond if self.is_beyond(case) else self.usual))

    def is_beyond(self, values: Values) -> bool:
        """Return whether the number is on the bad side of the threshold."""
        value, threshold = values.get(self.number or ""), values.get("threshold", self.threshold)
        if not isinstance(value, int | float) or not isinstance(threshold, int | float):
            return False
        return value < threshold if self.bad == "<" else self.bad == ">" and value > threshold

    def sentence_key(self, outcome: str, values: Values) -> str:
        outcome = str(values.get(ASSUMED, outcome))
        return f"rule.{self.sentences or self.id}.{outcome}{self.variant(values)}"


def rule(base: Callable[..., Rule], **more: Any) -> Callable[[Measure], Rule]:
    """Return a decorator: a rule is named like the function that measures it."""
    return lambda measure: base(**{"id": measure.__name__, "measure": measure, **more})


def formats(names: str, form: Format, **more: Format) -> dict[str, Format]:
    """Return the formats of the numbers of a rule: one for all names, and those of the others."""
    return {**dict.fromkeys(names.split(), form), **more}


def list_names(names: Sequence[str], most: int = 5) -> str:
    """Return some names, and how many more there are."""
    more = [f"+{len(names) - most}"] if len(names) > most else []
    return ", ".join([*names[:most], *more])
