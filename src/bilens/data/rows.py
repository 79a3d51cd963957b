"""Rows of inputs from a file: a CSV table, a NumPy array or a safetensors file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from bilens.base.errors import DataError, UsageError
from bilens.base.memory import check_memory
from bilens.data.columns import read_columns

KINDS = (".csv", ".npy", ".safetensors")


def read_rows(path: Path, d_in: int, names: Sequence[str] | None = None) -> Tensor:
    """Return the rows of a file, (rows, d_in) float64.

    Args:
        path: a CSV table whose first line names the columns, an array of shape (rows, d_in) saved
            with numpy.save, or a safetensors file with one tensor of that shape.
        d_in: how many numbers a row has.
        names: of the columns to take from a table, in order; None takes all of its columns.

    Raises:
        DataError: If the file is missing, damaged, or holds other rows.
        UsageError: If it is of another kind.
        MemoryLimitError: If the rows would not fit.
    """
    if path.suffix not in KINDS:
        raise UsageError(
            f"{path}: is no file of rows; expected a {', '.join(KINDS[:-1])} or {KINDS[-1]} file."
        )
    if not path.is_file():
        raise DataError(f"{path}: no such file; expected rows of {d_in} numbers.")
    check_memory(8 * path.stat().st_size, f"{path}", "pass fewer rows")
    if path.suffix == ".csv":
        rows = read_columns(path, header(path) if names is None else names).values
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


def header(path: Path) -> list[str]:
    """Return the names of the columns of a table.

    Raises:
        DataError: If it has none, or is no UTF-8.
    """
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            first = next(csv.reader(file), [])
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"{path}: is not a CSV table in UTF-8 ({error}).") from error
    if not first:
        raise DataError(f"{path}: holds no rows; expected a line of column names and rows below.")
    return [cell.strip() for cell in first]


def from_numpy(path: Path) -> Tensor:
    """Return an array that numpy.save wrote; objects are never unpickled.

    Raises:
        DataError: If it is damaged or holds other things than numbers.
    """
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
    """Return the one tensor of a safetensors file.

    Raises:
        DataError: If it is damaged, or holds another number of tensors.
    """
    try:
        with safe_open(str(path), framework="pt") as file:
            names = list(file.keys())
            tensor = file.get_tensor(names[0]) if len(names) == 1 else None
    except (SafetensorError, OSError) as error:
        raise DataError(f"{path}: is not a readable safetensors file ({error}).") from error
    if not isinstance(tensor, Tensor):
        raise DataError(f"{path}: holds {len(names)} tensors; expected one, of rows.")
    return tensor.double()
