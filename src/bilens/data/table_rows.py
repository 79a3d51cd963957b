"""Rows for a model: the columns it reads and its targets from a CSV table, or rows of numbers."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bilens.base.errors import DataError, UsageError
from bilens.base.files import check_regular_file
from bilens.base.memory import check_memory
from bilens.data.csv_table import other_separator, plain_number, read_header, read_lines

KINDS = (".csv", ".npy", ".safetensors")


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
    """Return cells that are all finite numbers."""
    found = [plain_number(cell) for cell in cells]
    values = [math.nan if value is None else value for value in found]
    for row, value in enumerate(values):
        if not math.isfinite(value):
            raise DataError(
                f"{path}: row {row} has {cells[row][:40]!r} in {what} {column!r}; expected a "
                "finite number: fill or remove the row."
            )
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


def read_targets(path: Path, column: str | None, outputs: Sequence[str]) -> Tensor | None:
    """Return the target of every row: int64 classes, or float64 numbers for one output."""
    header, *lines = read_lines(path)
    if column is None or header.count(column) != 1:
        return None
    cells = cells_of(lines, header.index(column))
    if len(outputs) == 1:
        return torch.tensor(numbers(path, column, cells, "the target"), dtype=torch.float64)
    known = {name: index for index, name in enumerate(outputs)}
    bad = next((row for row, cell in enumerate(cells) if cell not in known), None)
    if bad is not None:
        raise DataError(
            f"{path}: row {bad} has {cells[bad][:40]!r} in the target {column!r}; the model knows "
            f"{', '.join(outputs[:8])}: remove the row, or leave the column out."
        )
    return torch.tensor([known[cell] for cell in cells])


def read_rows(path: Path, d_in: int, names: Sequence[str] | None = None) -> Tensor:
    """Return the rows of a file, (rows, d_in) float64: CSV with a header, .npy or .safetensors."""
    if path.suffix not in KINDS:
        raise UsageError(
            f"{path}: is no file of rows; expected a {', '.join(KINDS[:-1])} or {KINDS[-1]} file."
        )
    status = check_regular_file(path, f"expected rows of {d_in} numbers", DataError)
    check_memory(8 * status.st_size, f"{path}", "pass fewer rows")
    if path.suffix == ".csv":
        rows = read_columns(path, read_header(path) if names is None else names).values
    elif path.suffix == ".npy":
        rows = from_numpy(path)
    else:
        rows = from_safetensors(path)
    if rows.ndim != 2 or rows.shape[1] != d_in or len(rows) == 0:
        raise DataError(f"{path}: holds {tuple(rows.shape)} numbers; expected (rows, {d_in}).")
    bad = (~rows.isfinite()).any(dim=1).nonzero().flatten().tolist()
    if bad:
        raise DataError(
            f"{path}: row {bad[0]} and {len(bad) - 1} more hold NaN or infinity: fill or remove "
            "them."
        )
    return rows


def from_numpy(path: Path) -> Tensor:
    """Return an array that numpy.save wrote; objects are never unpickled."""
    try:
        array = np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise DataError(
            f"{path}: is not an array of numbers that numpy.save wrote ({error})."
        ) from error
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "fiub":
        raise DataError(
            f"{path}: holds {getattr(array, 'dtype', 'several arrays')}; expected real numbers."
        )
    return torch.from_numpy(array.astype(np.float64))


def from_safetensors(path: Path) -> Tensor:
    """Return the one tensor of a safetensors file."""
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            tensor = file.get_tensor(names[0]) if len(names) == 1 else None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: is not a readable safetensors file ({error}).") from error
    if not isinstance(tensor, Tensor):
        raise DataError(f"{path}: holds {len(names)} tensors; expected one, of rows.")
    return tensor.double()
