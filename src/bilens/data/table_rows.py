"""Rows of a table as a model reads them, the table that it was trained on, and its fingerprints."""

import hashlib
from base64 import b64decode, b64encode
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Literal, get_args

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import DataError, UsageError
from bilens.data.cells import DECIMAL, is_missing, is_nearly_all, parse_number
from bilens.data.table_checks import checked, decided
from bilens.data.table_columns import Cells, encoded, fitted_column, spelling_key, varies, votes_of
from bilens.data.table_file import RawTable
from bilens.records.column_readings import CellConversion, TableColumn, TableReading
from bilens.records.common import Value

Empty = dict[int, tuple[str, ...]]
CLASS_WORDS = ("none", "na", "nil")  # of those for no value, such as a class may have, too
FREQUENT, FEWEST = 0.02, 5  # share of the rows and rows that make such a word a class of a target


@dataclass(frozen=True, eq=False)
class NamedRows:
    """Rows of a table, the columns in the order of a model's inputs."""

    values: Tensor  # (rows, inputs) float64
    columns: tuple[str, ...]  # of the table, in the order of the inputs
    done: tuple[CellConversion, ...]  # what was done to what the file holds
    empty: Empty  # columns of a row whose cells hold no value, of those rows that have one


def with_target(
    table: RawTable, target: str | None, classes: Collection[str] | None = None
) -> RawTable:
    """Return the rows that have a target, or all; None and its like may be a class of texts."""
    name, done = str(target), list(table.done)
    cells = table.column(name) if name in table.positions else []
    counts = Counter(cell for cell in cells if is_missing(cell))
    words = {spelling_key(each) for each in classes or ()}
    others = [parse_number(cell, ".") for cell in cells if not is_missing(cell)]
    if classes is None and not is_nearly_all(others):
        often = max(FEWEST, FREQUENT * len(cells))
        words = {c.lower() for c in counts if c.lower() in CLASS_WORDS and counts[c] >= often}
    kept = [at for at, cell in enumerate(cells) if cell.lower() in words or not is_missing(cell)]
    if not kept:
        return table
    if len(kept) < len(cells):
        done.append(CellConversion.of_kind("no_target", column=name, count=len(cells) - len(kept)))
    for text, count in counts.items():
        kind = "class_word" if text.lower() in words else "no_target_word"
        done += [CellConversion.of_kind(kind, column=name, text=text, count=count)] if text else []
    rows, numbers = zip(*((table.rows[at], table.numbers[at]) for at in kept), strict=True)
    return replace(table, rows=rows, numbers=numbers, done=tuple(done))


def columns_of(
    table: RawTable,
    names: Sequence[str],
    reading: TableReading | None,
    fill: Sequence[float] | None,
) -> NamedRows:
    """Return the rows of a table as a model reads them."""
    done, found, empty = list(table.done), dict[str, list[float]](), Empty()
    known = [*map(plain_column, names)] if reading is None else reading.columns
    by_name = any(one == plain_column(one.name) for one in known)
    twice = {one.values["old"] for one in table.done if one.kind == "renamed" and by_name}
    twice |= {name for name, count in Counter(map(str.strip, names)).items() if count > 1}
    used = [column for column in implied_columns(table, known) if column.inputs]
    check_columns(table, [column.name for column in used], twice)
    votes = votes_of(table)
    for column in used:
        cells = Cells(table, column.name, "remove the row")
        found |= encoded(cells, column, votes)
        done += cells.done
        for row in (at for at, gone in enumerate(cells.gone) if gone):
            empty[row] = (*empty.get(row, ()), column.name)
    values = [found[name.strip()] for name in names]
    tensor = torch.tensor(values, dtype=torch.float64).T.contiguous()
    if fill is not None:
        tensor = torch.where(tensor.isnan(), torch.tensor(fill, dtype=torch.float64), tensor)
    gaps = tensor.isnan().nonzero().tolist()
    if gaps:
        row, column_at = gaps[0]
        raise DataError(
            f"{table.path}: row {table.numbers[row]} has no value that can be read for "
            f"{names[column_at]!r}; expected a finite number: fill or remove the row."
        )
    return NamedRows(tensor, tuple(column.name for column in used), tuple(done), empty)


def check_columns(table: RawTable, wanted: Sequence[str], twice: Collection[Value] = ()) -> None:
    """Refuse a table that lacks a column, or has two of its name."""
    absent = [name for name in wanted if name not in table.positions or name in twice]
    if absent:
        raise DataError(
            f"{table.path}: has no column, or two, of the name {', '.join(map(repr, absent[:4]))}; "
            f"the model reads {len(wanted)} columns and the table has "
            f"{', '.join(table.names[:8])}{', …' if len(table.names) > 8 else ''}."
        )


def plain_column(name: str) -> TableColumn:
    """Return a column of numbers of which nothing but its name is known."""
    return TableColumn(name, "number", (name,), decimal="")


def implied_columns(table: RawTable, columns: Iterable[TableColumn]) -> list[TableColumn]:
    """Return how a table is read: of what is known by its name alone, as that name says."""
    found: dict[str, TableColumn] = {}
    for one in columns:
        name, is_plain = one.name.strip(), one == plain_column(one.name)
        splits = [(name[:at], name[at + 1 :]) for at, mark in enumerate(name) if mark == "="]
        known = [split for split in splits if split[0] in table.positions]
        if not is_plain or name in table.positions or not known:
            found[name] = plain_column(name) if is_plain else one
            continue
        held = [split for split in known if split[1] in table.column(split[0])]
        column, level = (held or known[-1:])[0]
        before = found.get(column, TableColumn(column, "category", ()))
        inputs, levels = (*before.inputs, name), (*before.levels, level)
        found[column] = TableColumn(column, "category", inputs, levels=levels)
    return [*found.values()]


# ---- a table to train on

Task = Literal["auto", "classification", "regression"]
Answers = tuple[Tensor, tuple[str, ...] | None, TableColumn, list[CellConversion]]
MOST_CLASSES = 10  # whole numbers of a target that are taken for classes


@dataclass(frozen=True, eq=False)
class TrainingTable:
    """A table as a model is trained on it: numbers, targets, and how its columns are read."""

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
    part = table.with_rows(rows)
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
        done.append(CellConversion.of_kind("wide", inputs=len(inputs), rows=len(rows)))
    names = tuple(inputs)
    for name in (one.name for one in columns if one.inputs):
        texts = np.array([cell or "" for _, cell in Cells(part, name).every], object)
        done += decided(name, texts, goal[rows].numpy(), class_names)
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
    saved, groups = target.to_save(DECIMAL, votes, decimal), target.has_groups(decimal)
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
        column = TableColumn(name, "number", (), units[0], saved, groups=groups)
        return torch.tensor(found, dtype=torch.float64), None, column, target.done
    cells = target.texts(partial(parse_number, decimal=decimal) if is_numeric else None)
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
    column = TableColumn(name, "category", (), decimal=saved, groups=groups)
    return torch.tensor([codes[cell] for cell in cells]), tuple(names), column, target.done


# ---- rows of a training, known again by their fingerprints

ROWS_KEY = "training_rows"  # in the provenance of a model: the fingerprints of its training rows
FITTED_KEY = "fitted_rows"  # likewise of what a conversion was fitted to, which reads no answers


def row_fingerprints(inputs: Tensor, targets: Tensor | None = None) -> str:
    """Return 32 bits of each row with its right answer, so that the same rows are known again."""
    answers = [] if targets is None else [targets[:, None].double()]
    rows = torch.cat([inputs.double(), *answers], dim=1).float().cpu().numpy()
    hashes = (hashlib.blake2b(row.tobytes(), digest_size=4).digest() for row in rows + 0.0)
    return b64encode(b"".join(hashes)).decode()


def known_rows(text: str, inputs: Tensor, targets: Tensor | None) -> tuple[int, float]:
    """Return how many rows are among those of fingerprints, and the share of twins among these."""
    texts = (text, row_fingerprints(inputs, targets))
    known, rows = (np.frombuffer(b64decode(found), "<u4") for found in texts)
    counts = np.unique(known, return_counts=True)[1]
    return int(np.isin(rows, known).sum()), float(counts[counts > 1].sum() / max(len(known), 1))
