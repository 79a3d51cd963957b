"""Rows of a table as a model reads them, and their right answers."""

from collections import Counter
from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.base.errors import DataError
from bilens.data.cells import is_missing, is_nearly_all, parse_number
from bilens.data.table_columns import Cells, encoded, spelling_key, votes_of
from bilens.data.table_file import RawTable
from bilens.records.common import Value
from bilens.records.table_audit import Conversion, TableColumn, TableReading

CLASS_WORDS = ("none", "na", "nil")  # of those for no value, such as a class may have, too
FREQUENT, FEWEST = 0.02, 5  # share of the rows and rows that make such a word a class of a target


@dataclass(frozen=True, eq=False)
class NamedRows:
    """Rows of a table, the columns in the order of a model's inputs."""

    values: Tensor  # (rows, inputs) float64
    columns: tuple[str, ...]  # of the table, in the order of the inputs
    done: tuple[Conversion, ...]  # what was done to what the file holds


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
        done.append(Conversion.of("no_target", column=name, count=len(cells) - len(kept)))
    for text, count in counts.items():
        kind = "class_word" if text.lower() in words else "no_target_word"
        done += [Conversion.of(kind, column=name, text=text, count=count)] if text else []
    rows, numbers = zip(*((table.rows[at], table.numbers[at]) for at in kept), strict=True)
    return replace(table, rows=rows, numbers=numbers, done=tuple(done))


def columns_of(
    table: RawTable,
    names: Sequence[str],
    reading: TableReading | None,
    fill: Sequence[float] | None,
) -> NamedRows:
    """Return the rows of a table as a model reads them."""
    done, found = list(table.done), dict[str, list[float]]()
    twice = {one.values["old"] for one in table.done if one.kind == "renamed" and reading is None}
    columns = implied_columns(table, names) if reading is None else reading.columns
    used = [column for column in columns if column.inputs]
    check_columns(table, [column.name for column in used], twice)
    votes = votes_of(table)
    for column in used:
        cells = Cells(table, column.name, "remove the row")
        found |= encoded(cells, column, votes)
        done += cells.done
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
    return NamedRows(tensor, tuple(column.name for column in used), tuple(done))


def check_columns(table: RawTable, wanted: Sequence[str], twice: Collection[Value] = ()) -> None:
    """Refuse a table that lacks a column, or has two of its name."""
    absent = [name for name in wanted if name not in table.positions or name in twice]
    if absent:
        raise DataError(
            f"{table.path}: has no column, or two, of the name {', '.join(map(repr, absent[:4]))}; "
            f"the model reads {len(wanted)} columns and the table has "
            f"{', '.join(table.names[:8])}{', …' if len(table.names) > 8 else ''}."
        )


def implied_columns(table: RawTable, names: Sequence[str]) -> list[TableColumn]:
    """Return the columns of a model that does not say how its table was read, by its names."""
    found: dict[str, TableColumn] = {}
    for name in map(str.strip, names):
        splits = [(name[:at], name[at + 1 :]) for at, mark in enumerate(name) if mark == "="]
        known = [split for split in splits if split[0] in table.positions]
        if name in table.positions or not known:
            found[name] = TableColumn(name, "number", (name,), decimal="")
            continue
        held = [split for split in known if split[1] in table.column(split[0])]
        column, level = (held or known[-1:])[0]
        before = found.get(column, TableColumn(column, "category", ()))
        inputs, levels = (*before.inputs, name), (*before.levels, level)
        found[column] = TableColumn(column, "category", inputs, levels=levels)
    return [*found.values()]
