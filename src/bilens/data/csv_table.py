"""A CSV file as names and cells, checked once."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from bilens.base.errors import DataError

MISSING = {"", "na", "n/a", "nan", "null", "none", "?"}


@dataclass(frozen=True)
class CsvTable:
    """The cells of a table, as text without spaces around it.

    Attributes:
        path: of the file.
        names: of the columns, as the first line says.
        rows: of equal length, one text for each column.
    """

    path: Path
    names: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]

    def column(self, name: str) -> list[str]:
        """Return the cells of a column."""
        place = self.names.index(name)
        return [row[place] for row in self.rows]

    def to_text(self, rows: Sequence[int]) -> str:
        """Return some of the rows as the text of a CSV file, the names first."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerow(self.names)
        writer.writerows(self.rows[row] for row in rows)
        return text.getvalue()


def other_separator(names: Sequence[str]) -> str:
    """Return a hint where the first line is one name that other separators would cut."""
    found = [mark for mark in (";", "\t", "|") if len(names) == 1 and mark in names[0]]
    return f" Its columns seem to be separated by {found[0]!r}: use commas." if found else ""


def is_missing(cell: str) -> bool:
    """Tell whether a cell says that there is no value: empty, NA, NaN, null, none or ?."""
    return cell.lower() in MISSING


def read_lines(path: Path) -> list[list[str]]:
    """Return the lines of a CSV file, empty ones left out: the names, and one or more rows.

    Raises:
        DataError: If it cannot be read, is no CSV table, or has no rows.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            lines = list(csv.reader(file, strict=True))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path}: byte {error.start} is not UTF-8: save the table as UTF-8."
        ) from error
    except csv.Error as error:
        raise DataError(f"{path}: is not a CSV table ({error}).") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    lines = [line for line in lines if line]
    if len(lines) < 2:
        raise DataError(f"{path}: holds no rows; expected a line of column names and rows below.")
    return lines


def read_table(path: Path) -> CsvTable:
    """Return a table all of whose columns have a name of their own, and all of whose rows fit.

    Raises:
        DataError: If it cannot be read, has no rows, a name is empty or there twice, or a row has
            more or fewer cells than the first line.
    """
    first, *rest = read_lines(path)
    names = tuple(cell.strip() for cell in first)
    if not all(names):
        raise DataError(
            f"{path}: column {names.index('') + 1} of {len(names)} has no name in the first line: "
            "name it, or remove it."
        )
    twice = [name for name, count in Counter(names).items() if count > 1]
    if twice:
        raise DataError(
            f"{path}: has more than one column of the name {', '.join(map(repr, twice[:4]))}: "
            "rename them."
        )
    for number, line in enumerate(rest):
        if len(line) != len(names):
            raise DataError(
                f"{path}: row {number} has {len(line)} cells; the first line names {len(names)} "
                f"columns: repair the row.{other_separator(names)}"
            )
    return CsvTable(path, names, tuple(tuple(cell.strip() for cell in line) for line in rest))
