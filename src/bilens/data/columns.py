"""Rows of a CSV table with named columns, as inputs of a model that names its inputs."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.errors import DataError
from bilens.data.csv_table import other_separator, read_lines


@dataclass(frozen=True, eq=False)
class NamedRows:
    """Rows of a table.

    Attributes:
        values: (rows, inputs) float64, the columns in the order of the inputs.
        names: of the inputs.
        source: the path of the table.
    """

    values: Tensor
    names: tuple[str, ...]
    source: str


def read_columns(path: Path, names: Sequence[str]) -> NamedRows:
    """Return the columns of a CSV file that a model reads, in its order; others are ignored.

    An input of the name `column=text` that is no column itself is 1 where the column holds that
    text, and 0 where it holds another one that the model knows.

    Args:
        path: UTF-8, the first line names the columns.
        names: the inputs of the model.

    Raises:
        DataError: If the file cannot be read, lacks a column or names one twice, has no rows, or
            a cell of a column that is read is not a finite number, or not a text that the model
            knows.
    """
    lines = read_lines(path)
    header = [cell.strip() for cell in lines[0]]
    texts = levels_of(names, header)
    needed = [name.strip() if column is None else column for name, (column, _) in texts.items()]
    missing = [name for name in dict.fromkeys(needed) if header.count(name) != 1]
    if missing:
        raise DataError(
            f"{path}: has no column, or two, of the name {', '.join(map(repr, missing[:4]))}; the "
            f"model reads {len(names)} columns and the table has {', '.join(header[:8])}"
            f"{', …' if len(header) > 8 else ''}.{other_separator(header)}"
        )
    known: dict[str, set[str]] = {}
    for column, level in texts.values():
        if column is not None:
            known.setdefault(column, set()).add(level)
    places = [
        (header.index(name), *texts[given]) for name, given in zip(needed, names, strict=True)
    ]
    rows = [
        [
            _number(path, line, place, header[place], number)
            if column is None
            else float(_text(path, line, place, known[column], header[place], number) == level)
            for place, column, level in places
        ]
        for number, line in enumerate(lines[1:])
    ]
    return NamedRows(torch.tensor(rows, dtype=torch.float64), tuple(names), str(path))


def levels_of(names: Sequence[str], header: Sequence[str]) -> dict[str, tuple[str | None, str]]:
    """Return for each input the column whose text it indicates, and the text; None for numbers."""
    found: dict[str, tuple[str | None, str]] = {}
    for name in names:
        found[name] = (None, "")
        if name.strip() not in header:
            column, equals, level = name.partition("=")
            if equals and column in header:
                found[name] = (column, level)
    return found


def _number(path: Path, line: list[str], place: int, column: str, row: int) -> float:
    text = line[place].strip() if place < len(line) else ""
    try:
        value = float(text)
    except ValueError:
        value = math.nan
    if not math.isfinite(value):
        raise DataError(
            f"{path}: row {row} has {text[:40]!r} in column {column!r}; expected a finite number: "
            "fill or remove the row."
        )
    return value


def _text(path: Path, line: list[str], place: int, known: set[str], column: str, row: int) -> str:
    text = line[place].strip() if place < len(line) else ""
    if text not in known:
        raise DataError(
            f"{path}: row {row} has {text[:40]!r} in column {column!r}; the model knows "
            f"{', '.join(sorted(known)[:8])}: fill or remove the row."
        )
    return text
