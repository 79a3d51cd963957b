"""Tables: a CSV file as names and cells, and rows and targets for a model from it or an array."""

from __future__ import annotations

import csv
import io
import math
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.errors import DataError
from bilens.base.files import check_regular_file

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
LARGEST = 1e100  # of a number: the square of one beyond 1e154 is none in float64
SMALLEST = 1e-100  # of the numbers of a column: the square of one below 1e-154 is zero


@dataclass(frozen=True)
class CsvTable:
    """The cells of a table, as text without spaces around it; all rows are equally long."""

    path: Path
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    @cached_property
    def positions(self) -> dict[str, int]:
        return {name: position for position, name in enumerate(self.names)}

    def column(self, name: str) -> list[str]:
        return [row[self.positions[name]] for row in self.rows]

    def to_text(self, rows: Sequence[int]) -> str:
        """Return some of the rows as the text of a CSV file, the names first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(self.rows[row] for row in rows)
        return text.getvalue()


def plain_number(cell: str) -> float | None:
    """Return a number in ASCII digits; Python itself would read "1_0", "٣" and "infinity" too."""
    return float(cell) if NUMBER.fullmatch(cell) else None


def as_number(cell: str) -> float | None:
    """Return the number in a cell, or None where there is none that can be squared."""
    value = plain_number(cell)
    return value if value is not None and abs(value) <= LARGEST else None


def is_missing(cell: str) -> bool:
    """Tell whether a cell says that there is no value."""
    return cell.lower() in MISSING


def other_separator(names: Sequence[str]) -> str:
    """Return a hint where the first line is one name that other separators would cut."""
    found = [mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]]
    return f" Its columns seem to be separated by {found[0]!r}: use commas." if found else ""


def refuse_other_numbers(path: Path, column: str, cells: Sequence[str], instead: str) -> None:
    """Refuse cells that are numbers to Python and not to `as_number`, naming the first one."""
    has_numbers = any(as_number(cell) is not None for cell in cells)
    for row, cell in enumerate(cells):
        if is_missing(cell) or as_number(cell) is not None or ("_" in cell and not has_numbers):
            continue
        try:
            value = float(cell)
        except ValueError:
            continue
        expected = "a number in plain digits, such as 10, -0.5 or 1e-3: repair the cell,"
        if abs(value) > LARGEST:
            expected = f"a number of at most {LARGEST:g}: repair the cell, rescale the column,"
        raise DataError(
            f"{path}: row {row} has {cell[:40]!r} in column {column!r}; expected {expected} or "
            f"{instead}."
        )


def refuse_tiny_numbers(path: Path, column: str, numbers: Sequence[float], instead: str) -> None:
    largest = max((abs(number) for number in numbers if number == number), default=0.0)
    if 0 < largest < SMALLEST:
        raise DataError(
            f"{path}: column {column!r} holds numbers of at most {largest:g}; expected some of at "
            f"least {SMALLEST:g}, as smaller ones cannot be computed with: rescale the column, or "
            f"{instead}."
        )


@contextmanager
def csv_lines(path: Path) -> Iterator[Iterator[list[str]]]:
    """Give the lines of a CSV file one by one; what is wrong with it is an error."""
    check_regular_file(path, "expected a CSV table", DataError)
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            yield csv.reader(file, strict=True)
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8: save the table as UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(f"{path}: is not a CSV table ({error}).") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def read_lines(path: Path) -> list[list[str]]:
    """Return the lines of a CSV file, empty ones left out: the names, and one or more rows."""
    with csv_lines(path) as lines:
        found = [[cell.strip() for cell in line] for line in lines if line]
    if len(found) < 2:
        raise DataError(f"{path}: holds no rows; expected a line of column names and rows below.")
    return found


def read_table(path: Path) -> CsvTable:
    """Return a table all of whose columns have a name of their own, and all of whose rows fit."""
    first, *rest = read_lines(path)
    if not all(first):
        raise DataError(
            f"{path}: column {first.index('') + 1} of {len(first)} has no name in the first line: "
            "name it, or remove it."
        )
    twice = [name for name, count in Counter(first).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: has more than one column of the name {', '.join(map(repr, twice[:4]))}: "
            "rename them."
        )
    for number, line in enumerate(rest):
        if len(line) != len(first):
            raise DataError(
                f"{path}: row {number} has {len(line)} cells; the first line names {len(first)} "
                f"columns: repair the row.{other_separator(first)}"
            )
    return CsvTable(path, tuple(first), tuple(map(tuple, rest)))


@dataclass(frozen=True, eq=False)
class NamedRows:
    """Rows of a table, the columns in the order of a model's inputs."""

    values: Tensor  # (rows, inputs) float64
    names: tuple[str, ...]
    source: str  # the path of the table


def read_columns(path: Path, names: Sequence[str]) -> NamedRows:
    """Return the columns of a CSV file that a model reads, in its order; others are ignored."""
    header, *lines = read_lines(path)
    positions = {name: position for position, name in enumerate(header)}
    once = {name for name, count in Counter(header).items() if count == 1}
    origins = [origin_of(name, positions, lines) for name in names]
    missing = dict.fromkeys(column for column, _ in origins if column not in once)
    if missing:
        raise DataError(
            f"{path}: has no column, or two, of the name {', '.join(map(repr, [*missing][:4]))}; "
            f"the model reads {len(names)} columns and the table has {', '.join(header[:8])}"
            f"{', …' if len(header) > 8 else ''}.{other_separator(header)}"
        )
    levels: dict[str, list[str]] = {}
    for column, level in origins:
        if level is not None:
            levels.setdefault(column, []).append(level)
    cells = {column: cells_of(lines, positions[column]) for column, _ in origins}
    values = [
        [float(cell == level) for cell in texts(path, column, cells[column], levels[column])]
        if level is not None
        else numbers(path, column, cells[column])
        for column, level in origins
    ]
    table = torch.tensor(values, dtype=torch.float64).T.contiguous()
    return NamedRows(table, tuple(names), str(path))


def origin_of(
    name: str, positions: dict[str, int], lines: Sequence[Sequence[str]]
) -> tuple[str, str | None]:
    """Return the column of an input, and the text that it indicates; None for numbers."""
    if name.strip() in positions:
        return name.strip(), None
    splits = [(name[:at], name[at + 1 :]) for at, mark in enumerate(name) if mark == "="]
    found = [split for split in splits if split[0] in positions]
    for column, level in found if len(found) > 1 else ():
        if level in cells_of(lines, positions[column]):
            return column, level
    return found[-1] if found else (name.strip(), None)


def cells_of(lines: Sequence[Sequence[str]], position: int) -> list[str]:
    """Return the cells of a column; a row may be too short."""
    return [line[position] if position < len(line) else "" for line in lines]


def numbers(path: Path, column: str, cells: Sequence[str], what: str = "column") -> list[float]:
    values = []
    for row, cell in enumerate(cells):
        value = plain_number(cell)
        if value is None or not math.isfinite(value):
            raise DataError(
                f"{path}: row {row} has {cell[:40]!r} in {what} {column!r}; expected a finite "
                "number: fill or remove the row."
            )
        values.append(value)
    return values


def texts(path: Path, column: str, cells: Sequence[str], known: Sequence[str]) -> Sequence[str]:
    """Return cells that are all texts which the model knows."""
    unknown = set(cells) - set(known)
    if unknown:
        row = next(row for row, cell in enumerate(cells) if cell in unknown)
        raise DataError(
            f"{path}: row {row} has {cells[row][:40]!r} in column {column!r}; the model knows "
            f"{', '.join(sorted(known)[:8])}: fill or remove the row."
        )
    return cells
