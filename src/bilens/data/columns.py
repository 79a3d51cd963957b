"""Rows of a CSV table with named columns, as inputs of a model that names its inputs."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bilens.errors import DataError


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

    Args:
        path: UTF-8, the first line names the columns.
        names: the inputs of the model.

    Raises:
        DataError: If the file cannot be read, lacks a column or names one twice, has no rows, or
            a cell of a column that is read is not a finite number.
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
    header = [cell.strip() for cell in lines[0]]
    missing = [name for name in names if header.count(name.strip()) != 1]
    if missing:
        raise DataError(
            f"{path}: has no column, or two, of the name {', '.join(map(repr, missing[:4]))}; the "
            f"model reads {len(names)} columns and the table has {', '.join(header[:8])}"
            f"{', …' if len(header) > 8 else ''}."
        )
    places = [header.index(name.strip()) for name in names]
    rows = [
        [_number(path, line, place, header[place], number) for place in places]
        for number, line in enumerate(lines[1:])
    ]
    return NamedRows(torch.tensor(rows, dtype=torch.float64), tuple(names), str(path))


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
