"""The right answers in a column of a table, as a model of that column counts them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.errors import DataError
from bilens.data.csv_table import read_lines
from bilens.data.training_table import as_number


def read_answers(path: Path, column: str | None, outputs: Sequence[str]) -> Tensor | None:
    """Return the target of every row: int64 classes, or float64 numbers where there is one output.

    Args:
        path: a CSV file.
        column: of the target; None, or a column that the table lacks, means that it is not known.
        outputs: the names of the classes, or of the one number.

    Raises:
        DataError: If the file cannot be read, or a row holds another class or no number.
    """
    header, *rows = read_lines(path)
    names = [cell.strip() for cell in header]
    if column is None or names.count(column) != 1:
        return None
    place = names.index(column)
    cells = [row[place].strip() if place < len(row) else "" for row in rows]
    if len(outputs) == 1:
        numbers = [as_number(cell) for cell in cells]
        bad = next((row for row, number in enumerate(numbers) if number is None), None)
        if bad is not None:
            raise DataError(
                f"{path}: row {bad} has {cells[bad][:40]!r} in the target {column!r}; expected a "
                "finite number: fill or remove the row, or leave the column out."
            )
        return torch.tensor(numbers, dtype=torch.float64)
    known = {name: index for index, name in enumerate(outputs)}
    bad = next((row for row, cell in enumerate(cells) if cell not in known), None)
    if bad is not None:
        raise DataError(
            f"{path}: row {bad} has {cells[bad][:40]!r} in the target {column!r}; the model knows "
            f"{', '.join(outputs[:8])}: remove the row, or leave the column out."
        )
    return torch.tensor([known[cell] for cell in cells])
