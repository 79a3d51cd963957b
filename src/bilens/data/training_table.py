"""A table to train on: numbers, indicators of texts, and a target."""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.base.errors import DataError, UsageError
from bilens.data.tables import (
    CsvTable,
    as_number,
    is_missing,
    other_separator,
    refuse_other_numbers,
    refuse_tiny_numbers,
)

Task = Literal["auto", "classification", "regression"]
Missing = Literal["refuse", "mean", "drop"]
MOST_LEVELS = 20  # texts of a column that become an indicator each
MOST_CLASSES = 10  # whole numbers of a target that are taken for classes


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """What a model is trained on."""

    values: Tensor  # (rows, inputs) float64; NaN where a mean is to be filled in
    names: tuple[str, ...]  # a column, or `column=text` for an indicator, 1 where it says that
    target: Tensor  # (rows,): int64 classes, or float64 numbers
    class_names: tuple[str, ...] | None  # None for numbers
    notes: tuple[str, ...]  # what a person should know
    cells: CsvTable  # the rows, as they came


def training_table(
    table: CsvTable,
    target: str,
    *,
    task: Task = "auto",
    drop: Collection[str] = (),
    missing: Missing = "refuse",
) -> TrainingTable:
    """Return the inputs and the target of a table."""
    for name in (target, *drop):
        if name not in table.positions:
            raise (DataError if name == target else UsageError)(
                f"{table.path}: has no column {name!r}; it has "
                f"{', '.join(table.names[:8])}{', …' if len(table.names) > 8 else ''}."
                f"{other_separator(table.names)}"
            )
    if target in drop:
        raise UsageError(f"{target!r} is the target and cannot be dropped.")
    if task not in get_args(Task) or missing not in get_args(Missing):
        raise UsageError(f"task={task!r}, missing={missing!r}: one of them is not known.")
    left_out = {target, *drop}
    read = [name for name in table.names if name not in left_out]
    if missing == "drop":
        table, notes = without_gaps(table, [*read, target])
    else:
        refuse_gaps(table, [*read, target] if missing == "refuse" else [target])
        notes = []
    if len(table.rows) < 2:
        raise DataError(f"{table.path}: holds 1 row; expected at least 2 to fit anything.")
    inputs: dict[str, list[float]] = {}
    constant = []
    for name in read:
        found = as_inputs(table, name)
        varying = {key: column for key, column in found.items() if varies(column)}
        twice = [key for key in varying if key in inputs]
        if twice:
            raise DataError(
                f"{table.path}: two inputs would have the name {twice[0]!r}, a column and a text "
                "of another one: rename a column."
            )
        inputs |= varying
        constant += [name] if not varying else []
    if constant:
        notes.append(f"Left out, as they have one value throughout: {', '.join(constant)}.")
    if not inputs:
        raise DataError(f"{table.path}: no column is left to predict {target!r} from.")
    goal, class_names = as_target(table, target, task)
    values = torch.tensor(list(inputs.values()), dtype=torch.float64).T.contiguous()
    if len(inputs) > len(values):
        notes.append(
            f"There are more inputs ({len(inputs)}) than rows ({len(values)}): many maps fit "
            "equally well, and the penalty decides between them."
        )
    return TrainingTable(values, tuple(inputs), goal, class_names, tuple(notes), table)


def is_numeric(cells: Sequence[str]) -> bool:
    """Tell whether every cell that says something is a number that can be squared."""
    return all(is_missing(cell) or as_number(cell) is not None for cell in cells)


def varies(column: Sequence[float]) -> bool:
    return len({value for value in column if not math.isnan(value)}) > 1


def as_inputs(table: CsvTable, name: str) -> dict[str, list[float]]:
    """Return a column as numbers, or as an indicator for each text; NaN where it says nothing."""
    cells, instead = table.column(name), f"leave it out with --drop {name!r}"
    if is_numeric(cells):
        found = [math.nan if is_missing(cell) else float(cell) for cell in cells]
        refuse_tiny_numbers(table.path, name, found, instead)
        return {name: found}
    refuse_other_numbers(table.path, name, cells, instead)
    levels = sorted({cell for cell in cells if not is_missing(cell)})
    if len(levels) > MOST_LEVELS:
        row = next(r for r, c in enumerate(cells) if not is_missing(c) and as_number(c) is None)
        raise DataError(
            f"{table.path}: column {name!r} is text ({cells[row][:40]!r} in row {row}) with "
            f"{len(levels)} different values; at most {MOST_LEVELS} become indicators: repair the "
            f"cell, or leave the column out with --drop {name!r}."
        )
    return {
        f"{name}={level}": [math.nan if is_missing(c) else float(c == level) for c in cells]
        for level in levels
    }


def as_target(table: CsvTable, name: str, task: Task) -> tuple[Tensor, tuple[str, ...] | None]:
    """Return the target as classes with their names, or as numbers and None."""
    cells = table.column(name)
    refuse_other_numbers(table.path, name, cells, "choose another target")
    if task == "auto":
        whole = is_numeric(cells) and all(float(cell).is_integer() for cell in cells)
        few = len(set(cells)) <= MOST_CLASSES
        task = "classification" if not is_numeric(cells) or (whole and few) else "regression"
    if task == "regression":
        for row, cell in enumerate(cells):
            if as_number(cell) is None:
                raise DataError(
                    f"{table.path}: row {row} has {cell[:40]!r} in the target {name!r}; a "
                    "regression expects a finite number: use --task classification for classes."
                )
        numbers = [float(cell) for cell in cells]
        refuse_tiny_numbers(table.path, name, numbers, "choose another target")
        if not varies(numbers):
            raise DataError(
                f"{table.path}: the target {name!r} is {cells[0]} in every row, so that there is "
                "nothing to predict: choose another target."
            )
        return torch.tensor(numbers, dtype=torch.float64), None
    names = sorted(set(cells), key=lambda cell: (as_number(cell) is None, as_number(cell), cell))
    if len(names) < 2:
        raise DataError(
            f"{table.path}: the target {name!r} holds one class, {names[0]!r}; a classification "
            "needs at least 2: choose another target."
        )
    if len(names) > len(cells) / 2:
        other = "use --task regression, or " if is_numeric(cells) else ""
        raise DataError(
            f"{table.path}: the target {name!r} has {len(names)} different values in "
            f"{len(cells)} rows, too many for classes: {other}choose another target."
        )
    codes = {cell: index for index, cell in enumerate(names)}
    return torch.tensor([codes[cell] for cell in cells]), tuple(names)


def refuse_gaps(table: CsvTable, names: list[str]) -> None:
    columns = [table.positions[name] for name in names]
    gaps = [(r, p) for r, row in enumerate(table.rows) for p in columns if is_missing(row[p])]
    if gaps:
        row, column = gaps[0]
        raise DataError(
            f"{table.path}: row {row} has no value in column {table.names[column]!r} "
            f"({len(gaps)} missing in all): fill it, or use --missing mean or --missing drop."
        )


def without_gaps(table: CsvTable, names: list[str]) -> tuple[CsvTable, list[str]]:
    """Return the rows that have a value in each of some columns, and a note on the others."""
    columns = [table.positions[name] for name in names]
    rows = tuple(row for row in table.rows if not any(is_missing(row[at]) for at in columns))
    if not rows:
        raise DataError(f"{table.path}: every row lacks a value: use --missing mean, or --drop.")
    left_out = len(table.rows) - len(rows)
    notes = [f"{left_out} of {len(table.rows)} rows lack a value and are left out."]
    return CsvTable(table.path, table.names, rows), notes if left_out else []
