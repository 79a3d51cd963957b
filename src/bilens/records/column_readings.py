"""The readings of a model with named columns: how tables are read, what columns do, and rows."""

from __future__ import annotations

from typing import Annotated, Literal

from bilens.records.base import Count, Record, require
from bilens.records.common import (
    ModelFacts,
    ModelReading,
    Reading,
    Value,
)
from bilens.records.view import View

OTHER = "(other)"  # the input that the rare texts of a column share


class CellConversion(Record, frozen=True):
    """One thing that was done to what a file holds; its sentence is `reading.KIND`."""

    kind: Annotated[str, "which sentence says it"]
    values: Annotated[dict[str, Value], "what fills the sentence; `column` where it is about one"]

    @staticmethod
    def of_kind(kind: str, /, **values: Value) -> CellConversion:
        return CellConversion(kind, values)


class TableColumn(Record, frozen=True):
    """How a column becomes inputs, and what was found on it in the table of the training."""

    name: Annotated[str, "of the column"]
    kind: Annotated[Literal["number", "date", "category"], "what its cells hold"]
    inputs: Annotated[tuple[str, ...], "of the model, in its order; empty if it is left out"]
    unit: Annotated[str, "of the numbers, as the cells say it"] = ""
    decimal: Annotated[str, "what stands before the decimals; empty where nothing shows it"] = "."
    groups: Annotated[bool | None, "whether the other mark was for thousands; null if older"] = None
    first: Annotated[str, "the day that days are counted from, as year-month-day"] = ""
    order: Annotated[str, '"day" or "month" stands first in 3/1/2024; empty if not known'] = ""
    levels: Annotated[tuple[str, ...], "texts that have an input of their own"] = ()
    merged: Annotated[tuple[str, ...] | None, "SHA-256, 8 digits, of texts in `(other)`"] = None
    alone: Annotated[float | None, "share of a guess's error that it alone takes away"] = None
    alone_null: Annotated[float, "the most that shuffled targets gave"] = 0.0
    identifier: Annotated[bool, "it names a row rather than describes it"] = False
    curve: Annotated[
        tuple[tuple[float, float], ...],
        "numbers, rising, with their ranks, straight lines between; empty if read as they come",
    ] = ()


BY_RANK = " (rank)"  # behind a column: the input that is its rank


def names_of(column: TableColumn) -> tuple[str, ...]:
    """Return the inputs that a column may have, in the order of `parts_of`."""
    if column.kind == "number":
        return (f"{column.name}{BY_RANK if column.curve else ''}",)
    if column.kind == "category":
        return tuple(f"{column.name}={level}" for level in column.levels)
    parts = ("year", "month", "weekday", "hour", f"days since {column.first}")
    return tuple(f"{column.name}: {part}" for part in parts)


class TableReading(Record, frozen=True):
    """A table as it was read for training: what `audit` and `explain` do to a new one, too."""

    columns: Annotated[tuple[TableColumn, ...], "in the order of the table"]
    done: Annotated[tuple[CellConversion, ...], View("what was done to the file", instead=())]
    train_score: Annotated[float | None, "accuracy or R² on the training rows"] = None
    target: Annotated[TableColumn | None, "its unit and decimals; null if older"] = None


class ColumnEffect(Record, frozen=True):
    """A column alone: linear · z + square · z², for each unit of z in units of the output."""

    column: Annotated[Count, "position among the inputs"]
    linear: Annotated[float, "b"]
    square: Annotated[float, "q, the diagonal entry of Q"]
    size: Annotated[float, "√(b² + 2q²): the standard deviation over a standard normal z"]


class PairEffect(Record, frozen=True):
    """Two columns together: coefficient · z_i z_j."""

    first: Annotated[Count, "position among the inputs"]
    second: Annotated[Count, "position among the inputs"]
    coefficient: Annotated[float, "twice the entry of Q; its size is the standard deviation, too"]


class OutputEffects(Record, frozen=True):
    """One output, taken apart into columns and pairs.

    For independent standard normal columns the parts are uncorrelated, and their squared sizes
    add up to the variance of the output (the analysis of variance of a quadratic form).
    """

    index: Annotated[Count, "position among the outputs"]
    name: Annotated[str, "of the output"]
    constant: Annotated[float, "the output at the mean of all inputs"]
    columns: Annotated[tuple[ColumnEffect, ...], "by falling size"]
    pairs: Annotated[tuple[PairEffect, ...], "the 20 strongest, by falling size"]
    num_pairs: Annotated[Count, "pairs there are"]
    variance: Annotated[float, "of the output over independent standard normal columns"]
    linear_share: Annotated[float, "Σ b² / variance"]
    square_share: Annotated[float, "Σ 2q² / variance"]
    pair_share: Annotated[float, "Σ coefficient² / variance"]


class ColumnChanges(Reading, frozen=True):
    """Changes of columns and answers from a baseline; those of one model alone are named."""

    added: Annotated[tuple[str, ...], "inputs of the model alone"]
    removed: Annotated[tuple[str, ...], "inputs of the baseline alone"]
    renamed: Annotated[tuple[tuple[str, str], ...], "[before, after], of one mean and deviation"]
    other_outputs: Annotated[tuple[str, ...], "of one model alone"]
    reread: Annotated[tuple[str, ...], "columns of both, by other ranks: only answers compare"] = ()
    outputs: Annotated[tuple[OutputEffects, ...], "model − baseline, in standard units"] = ()
    change: Annotated[float | None, "√(mean square of it / variance of the baseline)"] = None
    rows: Annotated[Count, "that both models answered: they hold what the baseline reads"] = 0
    changed: Annotated[Count, "with another class, or a number moved by > 1% of its spread"] = 0
    mended: Annotated[Count | None, "wrong before, right now; null if not known"] = None
    broken: Annotated[Count | None, "right before, wrong now; null likewise"] = None
    examples: Annotated[
        tuple[tuple[Count, str, str], ...], View("row, before and after", instead=())
    ] = ()


class InputValues(Record, frozen=True):
    """Values of one column or two, the others at their means."""

    columns: Annotated[tuple[Count, ...], "positions among the inputs"]
    z: Annotated[tuple[float, ...], "in standard deviations from the mean"]
    effect: Annotated[float, "by so much they raise the output"]

    def __post_init__(self) -> None:
        require(len(self.columns) == len(self.z) > 0, "a value has no column")


class WorstCaseInputs(Record, frozen=True):
    """The inputs that raise an output most, of those that are not always 0 or 1.

    No other values of these within three standard deviations of their means raise it more; ranks
    stay between those of the least and the largest training value.

    A class that a single value or pair raises far more than any raises the others may have been
    taught to: that is how a planted trigger looks in a table.
    """

    output: Annotated[Count, "position among the outputs"]
    one: Annotated[InputValues, "the one input that raises it most"]
    two: Annotated[InputValues | None, "null where there is one such input"]


class CategoryEffect(Record, frozen=True):
    """The effect of each text of a column on every output, all other columns at their means."""

    column: Annotated[str, "its name"]
    levels: Annotated[tuple[str, ...], "texts that have an input of their own"]
    effects: Annotated[tuple[tuple[float, ...], ...], "of each output, for each level"]


class InputPair(Record, frozen=True):
    """Two inputs and their Shapley interaction 2 q_ij Δ_i Δ_j, in logits."""

    first: Annotated[Count, "position among the inputs"]
    second: Annotated[Count, "position among the inputs"]
    value: Annotated[float, "the interaction"]


class InputAttribution(Record, frozen=True):
    """A score taken apart by inputs: exact Shapley values, which are the integrated gradients.

    The sum of `values` is score − score_at_baseline, up to `residual`.
    """

    kind: Annotated[str, "`class`: centred; `contrast`: minus that of `rival`; `output`: the one"]
    output: Annotated[Count, "the class or output"]
    rival: Annotated[Count | None, "the class with the second score; null without contrast"]
    score: Annotated[float, "of this input"]
    score_at_baseline: Annotated[float, "of the baseline"]
    residual: Annotated[float, "of the sum"]
    values: Annotated[tuple[float, ...], "one for each input, in logits"]
    pairs: Annotated[tuple[InputPair, ...], "the strongest Shapley interactions, by falling size"]


class RowReading(Record, frozen=True):
    """One row, taken apart exactly."""

    kind: Annotated[str, "why: `typical`, `narrow`, `wrong`, `farthest`, `first` or `asked`"]
    index: Annotated[Count, "as a spreadsheet numbers rows; of rows from memory from 0"]
    label: Annotated[Count | None, "the right class, if it is known"]
    target: Annotated[float | None, "the right number, if it is known"]
    predicted: Annotated[Count, "the class; 0 where there is one output"]
    inputs: Annotated[tuple[float, ...], "as they come"]
    scores: Annotated[tuple[float, ...], "class-centred logits, or the predicted number"]
    attributions: Annotated[tuple[InputAttribution, ...], "against the mean row, or zeros"]
    empty: Annotated[tuple[str, ...], "columns without a value; `inputs` has the mean there"] = ()

    def __post_init__(self) -> None:
        require(len(self.attributions) > 0, "a row is not taken apart")
        fits = all(len(part.values) == len(self.inputs) for part in self.attributions)
        require(fits, "an attribution does not fit")


class ColumnReadings(ModelReading, frozen=True):
    """The effects of the columns of a table, alone and in pairs, and rows taken apart by them."""

    outputs: Annotated[tuple[OutputEffects, ...], "one entry for each output"]
    worst_case_inputs: Annotated[tuple[WorstCaseInputs, ...], "empty without known deviations"]
    rows: Annotated[tuple[RowReading, ...], View("taken apart; empty without data", instead=())]
    categories: Annotated[tuple[CategoryEffect, ...], "empty without known mean and scale"] = ()
    reading: Annotated[TableReading | None, "how the training table was read, if known"] = None
    done: Annotated[tuple[CellConversion, ...], View("to the file of the rows", instead=())] = ()

    def check_fits(self, model: ModelFacts) -> None:
        """Refuse effects of other columns or outputs."""
        width, count = len(model.input_names or ()), len(model.output_names)
        one_layer = model.one_layer
        require(width == one_layer.d_input > 0, "input_names does not fit d_input")
        fits = len(self.outputs) == count == one_layer.d_output > 0
        require(fits, "outputs and output_names differ in number")
        task = "regression" if count == 1 else "classification"
        require(model.task == task, "the task does not fit the outputs")
        given = len(self.worst_case_inputs) in (0, count)
        require(given, "the worst-case inputs differ in number")
        parts = [part for row in self.rows for part in row.attributions]
        worst = [one for each in self.worst_case_inputs for one in (each.one, each.two) if one]
        named = [column for one in worst for column in one.columns]
        named += [one.column for output in self.outputs for one in output.columns]
        named += [at for one in self.outputs for p in one.pairs for at in (p.first, p.second)]
        named += [at for part in parts for pair in part.pairs for at in (pair.first, pair.second)]
        require(max(named, default=0) < width, "a column is not there")
        said = [each.output for each in self.worst_case_inputs]
        said += [output for part in parts for output in (part.output, part.rival or 0)]
        said += [output for row in self.rows for output in (row.predicted, row.label or 0)]
        require(max(said, default=0) < count, "an output is not there")
        fits = all(len(one.effects) == count for one in self.categories)
        require(fits, "a category has other outputs")
        if self.reading is not None:
            names = [name for column in self.reading.columns for name in column.inputs]
            require(names == [*(model.input_names or ())], "the columns do not fit the inputs")
        for row in self.rows:
            fits = len(row.inputs) == width and len(row.scores) == count
            require(fits, "a row does not fit")
