"""The readings of a model with named columns: how tables are read, what columns do, and rows."""

from __future__ import annotations

from typing import Literal

from bilens.records.base import Count, Record, require
from bilens.records.common import (
    ModelFacts,
    ModelReading,
    Reading,
    Value,
)

OTHER = "(other)"  # the input that the rare texts of a column share


class CellConversion(Record, frozen=True):
    """One thing that was done to what a file holds; its sentence is `reading.KIND`."""

    kind: str
    values: dict[str, Value]  # what fills the sentence; `column` where it is about one

    @staticmethod
    def of_kind(kind: str, /, **values: Value) -> CellConversion:
        return CellConversion(kind, values)


class TableColumn(Record, frozen=True):
    """How a column becomes inputs, and what was found on it in the table of the training."""

    name: str
    kind: Literal["number", "date", "category"]
    inputs: tuple[str, ...]  # of the model, in its order; empty where the column is left out
    unit: str = ""  # of the numbers, as the cells say it
    decimal: str = "."  # what stands before the decimals; empty where nothing shows it
    groups: bool | None = None  # whether the other mark stood for thousands; null in older folders
    first: str = ""  # the day that days are counted from, as year-month-day
    order: str = ""  # "day" or "month" stands first in 3/1/2024; empty where nothing shows it
    levels: tuple[str, ...] = ()  # texts that have an input of their own
    # SHA-256, 8 digits, of each text that shares `(other)`; null in folders of before
    merged: tuple[str, ...] | None = None
    # How well the column alone predicts the target in cross-validation: the share of the error of
    # a plain guess that it takes away, and the most that shuffled targets gave.
    alone: float | None = None
    alone_null: float = 0.0
    identifier: bool = False  # it names a row rather than describes it


class TableReading(Record, frozen=True):
    """A table as it was read for training: what `audit` and `explain` do to a new one, too."""

    columns: tuple[TableColumn, ...]
    done: tuple[CellConversion, ...]
    train_score: float | None = None  # accuracy or R² on the training rows
    # The target with its unit and decimals; null in folders of before, which do not say it.
    target: TableColumn | None = None


class ColumnEffect(Record, frozen=True):
    """A column alone: linear · z + square · z², for each unit of z in units of the output."""

    column: Count
    linear: float  # b
    square: float  # q, the diagonal entry of Q
    size: float  # √(b² + 2q²): the standard deviation over a standard normal z


class PairEffect(Record, frozen=True):
    """Two columns together: coefficient · z_i z_j."""

    first: Count
    second: Count
    coefficient: float  # twice the entry of Q; its size is the standard deviation, too


class OutputEffects(Record, frozen=True):
    """One output, taken apart into columns and pairs.

    For independent standard normal columns the parts are uncorrelated, and their squared sizes
    add up to the variance of the output (the analysis of variance of a quadratic form).
    """

    index: Count
    name: str
    constant: float  # the output at the mean of all columns
    columns: tuple[ColumnEffect, ...]  # by falling size
    pairs: tuple[PairEffect, ...]  # the 20 strongest, by falling size
    num_pairs: Count  # pairs there are
    variance: float  # of the output over independent standard normal columns
    linear_share: float  # Σ b² / variance
    square_share: float  # Σ 2q² / variance
    pair_share: float  # Σ coefficient² / variance


class ColumnChanges(Reading, frozen=True):
    """Changes of columns and answers from a baseline; those of one model alone are named."""

    added: tuple[str, ...]  # inputs of the model alone
    removed: tuple[str, ...]  # inputs of the baseline alone
    renamed: tuple[tuple[str, str], ...]  # [before, after], of one mean and deviation
    other_outputs: tuple[str, ...]  # of one model alone
    # of each output of both: model − baseline, in standard units of the model; a column that one
    # model alone reads counts as 0 in the other
    outputs: tuple[OutputEffects, ...] = ()
    # √(mean square of that / variance of the baseline); null where the baseline does not vary
    change: float | None = None
    rows: Count = 0  # that both models answered: they hold what the baseline reads
    changed: Count = 0  # with another class, or a number that moved by over 1% of its spread
    mended: Count | None = None  # wrong before and right now; null where that is not known
    broken: Count | None = None  # right before and wrong now; null likewise
    # the first ones, or the largest changes: row as a spreadsheet numbers it, before, after
    examples: tuple[tuple[Count, str, str], ...] = ()


class InputValues(Record, frozen=True):
    """Values of one column or two, the others at their means."""

    columns: tuple[Count, ...]
    z: tuple[float, ...]  # in standard deviations from the mean
    effect: float  # by so much they raise the output

    def __post_init__(self) -> None:
        require(len(self.columns) == len(self.z) > 0, "a value has no column")


class WorstCaseInputs(Record, frozen=True):
    """The inputs that raise an output most, of those that are not always 0 or 1.

    No other values of these within three standard deviations of their means raise it more.

    A class that a single value or pair raises far more than any raises the others may have been
    taught to: that is how a planted trigger looks in a table.
    """

    output: Count
    one: InputValues
    two: InputValues | None  # null where there is one such input


class CategoryEffect(Record, frozen=True):
    """The effect of each text of a column on every output, all other columns at their means."""

    column: str
    levels: tuple[str, ...]
    effects: tuple[tuple[float, ...], ...]  # of each output, for each level


class InputPair(Record, frozen=True):
    """Two inputs and their Shapley interaction 2 q_ij Δ_i Δ_j, in logits."""

    first: Count
    second: Count
    value: float


class InputAttribution(Record, frozen=True):
    """A score taken apart by inputs: exact Shapley values, which are the integrated gradients.

    The sum of `values` is score − score_at_baseline, up to `residual`.
    """

    # `class`: class-centred logit of `output`; `contrast`: minus that of `rival`; `output`: the
    # only one there is, as it is
    kind: str
    output: Count
    rival: Count | None
    score: float
    score_at_baseline: float
    residual: float  # of the sum
    values: tuple[float, ...]  # one for each input, in logits
    pairs: tuple[InputPair, ...]  # the strongest Shapley interactions, by falling size


class RowReading(Record, frozen=True):
    """One row, taken apart exactly."""

    # why it was chosen: `typical`, `narrow`, `wrong`, `farthest`, `first` or `asked`
    kind: str
    index: Count  # as a spreadsheet numbers rows; of rows from memory from 0
    label: Count | None  # the right class, if it is known
    target: float | None  # the right number, if it is known
    predicted: Count  # the class; 0 where there is one output
    inputs: tuple[float, ...]  # as they come
    scores: tuple[float, ...]  # class-centred logits, or the predicted number
    attributions: tuple[InputAttribution, ...]  # against the mean row, or zeros
    # columns whose cell holds no value: `inputs` has the mean there, but for an own `(missing)`
    empty: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        require(len(self.attributions) > 0, "a row is not taken apart")
        fits = all(len(part.values) == len(self.inputs) for part in self.attributions)
        require(fits, "an attribution does not fit")


class ColumnReadings(ModelReading, frozen=True):
    """The effects of the columns of a table, alone and in pairs, and rows taken apart by them."""

    outputs: tuple[OutputEffects, ...]
    # empty where mean and scale are not known, or all inputs are indicators
    worst_case_inputs: tuple[WorstCaseInputs, ...]
    rows: tuple[RowReading, ...]
    categories: tuple[CategoryEffect, ...] = ()  # empty where mean and scale are not known
    # how the table of the training was read; null where the model does not say it
    reading: TableReading | None = None
    done: tuple[CellConversion, ...] = ()  # to the file of the rows

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
