"""A table to train on: numbers, dates, indicators of texts, and a target."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.base.errors import DataError, UsageError
from bilens.data.cells import DECIMAL, is_missing, parse_number
from bilens.data.column_checks import checked
from bilens.data.table_columns import Cells, encoded, fitted_column, varies, votes_of
from bilens.data.table_file import RawTable
from bilens.data.tables import with_target
from bilens.records.table_audit import Conversion, TableColumn, TableReading

Task = Literal["auto", "classification", "regression"]
Answers = tuple[Tensor, tuple[str, ...] | None, TableColumn, list[Conversion]]
MOST_CLASSES = 10  # whole numbers of a target that are taken for classes


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """What a model is trained on."""

    values: Tensor  # (rows, inputs) float64; NaN where a mean is to be filled in
    names: tuple[str, ...]  # a column, or `column=text` for an indicator, 1 where it says that
    target: Tensor  # (rows,): int64 classes, or float64 numbers
    class_names: tuple[str, ...] | None  # None for numbers
    reading: TableReading  # how each column is read, and what was done
    cells: RawTable  # the rows, as they came


def training_table(
    table: RawTable, target: str, *, task: Task = "auto", drop: Collection[str] = ()
) -> TrainingTable:
    for name in (target, *drop):
        if name not in table.positions:
            seen = next((one.values for one in table.done if one.kind == "encoding"), None)
            guess = f"{seen['encoding']}: say the right one with --encoding." if seen else ""
            guess = guess and f" Its encoding is guessed to be {guess}"
            raise (DataError if name == target else UsageError)(
                f"{table.path}: has no column {name!r}; it has "
                f"{', '.join(table.names[:8])}{', …' if len(table.names) > 8 else ''}."
                f"{guess}"
            )
    if target in drop:
        raise UsageError(f"{target!r} is the target and cannot be dropped.")
    if task not in get_args(Task):
        raise UsageError(f"task={task!r} is not known.")
    read = [name for name in table.names if name not in {target, *drop}]
    table = with_target(table, target)
    answered = 0 if all(map(is_missing, table.column(target))) else len(table.rows)
    if answered < 2:
        raise DataError(
            f"{table.path}: holds {answered} rows with a target; expected at least 2 to fit "
            "anything."
        )
    return with_columns(table, read, target, lambda: as_target(table, target, task))


def fitted_to(whole: TrainingTable, known: Tensor) -> TrainingTable:
    """Return the same rows, their columns read as those that are known, (rows,) bool, decide."""
    if bool(known.all()):
        return whole
    column = whole.reading.target
    assert column is not None, "a training has one"
    done = [one for one in whole.reading.done if one not in whole.cells.done]
    said = [one for one in done if one.values.get("column") == column.name]
    answers = whole.target, whole.class_names, column, said
    names = [one.name for one in whole.reading.columns]
    return with_columns(whole.cells, names, column.name, lambda: answers, known)


def with_columns(
    table: RawTable,
    read: Sequence[str],
    target: str,
    answers: Callable[[], Answers],
    known: Tensor | None = None,
) -> TrainingTable:
    """Return a table with its inputs; how they are read is decided by the rows that are known."""
    rows = range(len(table.rows)) if known is None else known.nonzero()[:, 0].tolist()
    part = table.part(rows)
    votes, done = votes_of(part), list(table.done)
    inputs: dict[str, list[float]] = {}
    columns: list[TableColumn] = []
    for name in read:
        cells = Cells(part, name, f"leave it out with --drop {name!r}")
        column, parts = fitted_column(cells, votes)
        if known is not None:
            parts = encoded(Cells(table, name), column, votes)
        twice = [key for key in parts if key in inputs]
        if twice:
            raise DataError(
                f"{table.path}: two inputs would have the name {twice[0]!r}, a column and a text "
                "of another one: rename a column."
            )
        inputs |= parts
        columns.append(column)
        done += cells.done
    if not inputs:
        raise DataError(f"{table.path}: no column is left to predict {target!r} from.")
    goal, class_names, target_column, said = answers()
    values = torch.tensor(list(inputs.values()), dtype=torch.float64).T.contiguous()
    done += said
    if len(inputs) > len(rows):
        done.append(Conversion.of("wide", inputs=len(inputs), rows=len(rows)))
    names = tuple(inputs)
    read_columns = checked(columns, values[rows], names, goal[rows])
    reading = TableReading(read_columns, tuple(done), target=target_column)
    return TrainingTable(values, names, goal, class_names, reading, table)


def as_target(table: RawTable, name: str, task: Task) -> Answers:
    """Return the target as classes with their names, or as numbers and None; and how it is read."""
    target = Cells(table, name, "choose another target", is_target=True)
    target.refuse_odd_numbers()
    texts = target.known
    votes = votes_of(table)
    decimal = target.decimal(votes)
    saved = target.to_save(DECIMAL, votes, decimal)
    parsed = [parse_number(cell, decimal) for cell in texts]
    pairs = [pair for pair in parsed if pair is not None]
    found, is_numeric = [value for value, _ in pairs], None not in parsed
    if task == "auto":
        few = len(set(found)) <= MOST_CLASSES and all(value.is_integer() for value in found)
        task = "classification" if not is_numeric or few else "regression"
    if task == "regression":
        units = sorted({unit for _, unit in pairs})
        if not is_numeric or len(units) > 1:
            odd = parsed.index(None) if not is_numeric else 0
            raise target.refused(*target.places[odd], "a finite number in one unit")
        if not varies(found):
            raise DataError(
                f"{table.path}: the target {name!r} is {texts[0]} in every row, so that there is "
                "nothing to predict: choose another target."
            )
        column = TableColumn(name, "number", (), units[0], saved)
        return torch.tensor(found, dtype=torch.float64), None, column, target.done
    cells = target.texts()
    names = sorted(set(cells), key=lambda cell: (parse_number(cell, decimal) or (0.0, cell), cell))
    if len(names) < 2:
        raise DataError(
            f"{table.path}: the target {name!r} holds one class, {names[0]!r}; a classification "
            "needs at least 2: choose another target."
        )
    if len(names) > len(cells) / 2:
        other = "use --task regression, or " if is_numeric else ""
        raise DataError(
            f"{table.path}: the target {name!r} has {len(names)} different values in "
            f"{len(cells)} rows, too many for classes: {other}choose another target."
        )
    codes = {cell: index for index, cell in enumerate(names)}
    column = TableColumn(name, "category", (), decimal=saved)
    return torch.tensor([codes[cell] for cell in cells]), tuple(names), column, target.done
