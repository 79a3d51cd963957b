"""How a table was read: what was done to its file, and how its columns become inputs."""

from __future__ import annotations

from typing import Literal

from bilens.records.base import Record
from bilens.records.common import Value


class Conversion(Record, frozen=True):
    """One thing that was done to what a file holds; its sentence is `reading.KIND`."""

    kind: str
    values: dict[str, Value]  # what fills the sentence; `column` where it is about one

    @staticmethod
    def of(kind: str, /, **values: Value) -> Conversion:
        return Conversion(kind, values)


class TableColumn(Record, frozen=True):
    """How a column becomes inputs, and what was found on it in the table of the training."""

    name: str
    kind: Literal["number", "date", "category"]
    inputs: tuple[str, ...]  # of the model, in its order; empty where the column is left out
    unit: str = ""  # of the numbers, as the cells say it
    decimal: str = "."  # what stands before the decimals
    first: str = ""  # the day that days are counted from, as year-month-day
    order: str = ""  # "day" or "month": what stands first in 3/1/2024
    levels: tuple[str, ...] = ()  # texts that have an input of their own
    # How well the column alone predicts the target in cross-validation: the share of the error of
    # a plain guess that it takes away, and the most that shuffled targets gave.
    alone: float | None = None
    alone_null: float = 0.0
    identifier: bool = False  # it names a row rather than describes it


class TableReading(Record, frozen=True):
    """A table as it was read for training: what `audit` and `explain` do to a new one, too."""

    columns: tuple[TableColumn, ...]
    done: tuple[Conversion, ...]
    train_score: float | None = None  # accuracy or R² on the training rows
