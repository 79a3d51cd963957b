"""Columns to look at before a training: the answer itself, in all rows or some, or a row's name.

They are said and never left out. What counts as sure was fixed on other tables than those of the
tests.
"""

import re
from collections.abc import Sequence

import numpy as np
from msgspec import structs
from torch import Tensor

from bilens.data.table_columns import MISSING
from bilens.records.column_readings import CellConversion, TableColumn

LEAST_ROWS, MOST_ROWS = 30, 5000  # rows that such a question needs, and that are looked at
FOLDS = 5
FEW = 20  # different numbers that are taken as they are
TOGETHER = 3  # neighbouring rows whose mean is the prediction there
UNIQUE = 0.98  # share of different values of what names rows
IN_ORDER = 0.99  # |correlation| with the number of the row
ID_NAME = re.compile(  # a name that says so: customer_id, KundenNr., orderId, 顧客番号
    r"(?i:(?<![a-z])(id|uuid|guid|key|code|serial|no|number)\.?$|^id(?![a-z])|nr\.?$|nummer$)"
    r"|番号|コード|(?<=[a-z])I[dD]$"
)
LEAST_SHARE = 0.1  # of the rows that one value decides
CHANCE = 1e-6  # that rows drawn at random all have one answer


def checked(
    columns: Sequence[TableColumn], values: Tensor, names: Sequence[str], target: Tensor
) -> tuple[TableColumn, ...]:
    """Return columns with how well each alone predicts the target, and whether it names rows."""
    if len(values) < LEAST_ROWS:
        return tuple(columns)
    random = np.random.default_rng(0)
    chosen = random.permutation(len(values))[:MOST_ROWS]
    y = answers(target.numpy()[chosen])
    varies = bool(y.var(axis=0).any())  # what is rare may be in none of these rows
    shuffled = random.permutation(y)
    places = {name: at for at, name in enumerate(names)}
    found, null = [], 0.0
    for column in columns:
        if column.inputs:
            inputs = values[:, [places[name] for name in column.inputs]].numpy()
            key = one_number(inputs, column)
            column = structs.replace(column, identifier=names_rows(key, column))
            if varies:
                null = max(null, score(key[chosen], shuffled))
                column = structs.replace(column, alone=score(key[chosen], y))
        found.append(column)
    return tuple(structs.replace(column, alone_null=null) for column in found)


def answers(target: np.ndarray) -> np.ndarray:
    """Return indicators of classes, or numbers by their ranks: a long tail is no obstacle."""
    distinct, places, counts = np.unique(target, return_inverse=True, return_counts=True)
    if target.dtype.kind == "i":
        return np.eye(len(distinct))[places]
    return (np.cumsum(counts) - (counts + 1) / 2)[places][:, None] / len(target)


def one_number(x: np.ndarray, column: TableColumn) -> np.ndarray:
    """Return a column as one number a row, days of dates; no value is far below all values."""
    if column.kind == "category":
        return x @ np.arange(1.0, x.shape[1] + 1)
    parts = dict(zip(column.inputs, x.T, strict=True))
    key, hour = x[:, 0], parts.get(f"{column.name}: hour", 0.0)
    if (days := f"{column.name}: days since {column.first}") in parts:
        key = parts[days] + hour / 24
    return np.where(np.isnan(key), 2 * np.nanmin(key) - np.nanmax(key) - 1, key)


def score(key: np.ndarray, y: np.ndarray) -> float:
    """Return the share of the squared error of a plain guess that one column takes away.

    In cross-validation, from the mean answer of equal values, or of the nearest where many differ.
    """
    folds, error = np.arange(len(key)) % FOLDS, 0.0
    for fold in range(FOLDS):
        order = key[folds != fold].argsort(kind="stable")
        known, right = key[folds != fold][order], y[folds != fold][order]
        distinct, places = np.unique(known, return_inverse=True)
        if len(distinct) > FEW:
            places = np.arange(len(known)) // TOGETHER
        counts = np.bincount(places)
        centres = np.bincount(places, known) / counts
        for part, told in zip(right.T, y[folds == fold].T, strict=True):
            means = np.bincount(places, part) / counts
            error += float(np.square(np.interp(key[folds == fold], centres, means) - told).sum())
    return float(1 - error / (len(y) * y.var(axis=0).sum()))


def names_rows(key: np.ndarray, column: TableColumn) -> bool:
    """Tell whether numbers or days count the rows, or are codes of them by their name, too."""
    if column.kind == "category" or len(np.unique(key)) < UNIQUE * len(key):
        return False
    in_order = abs(np.corrcoef(np.arange(len(key)), key)[0, 1]) >= IN_ORDER
    span = np.ptp(key)
    if column.kind == "date":
        return bool(in_order)
    if (key != np.round(key)).any():  # a clock
        return bool(in_order and np.ptp(np.abs(np.diff(key))) < 1e-6 * span)
    return bool(in_order or span < 1.5 * len(key) or ID_NAME.search(column.name))


def decided(
    name: str, keys: np.ndarray, target: np.ndarray, class_names: Sequence[object] | None
) -> list[CellConversion]:
    """Return a sentence on a value of a column whose rows have one answer; "" is no value."""
    found = deciding_value(keys, target) if len(target) >= LEAST_ROWS else None
    if found is None:
        return []
    value, count, answer = found
    text = value[:40] or MISSING if isinstance(value, str) else f"{value:.10g}"
    said = f"{answer:g}" if class_names is None else str(class_names[int(answer)])
    about = {"column": name, "text": text, "answer": said, "share": f"{count / len(keys):.0%}"}
    return [CellConversion.of_kind("decides", count=count, **about)]


def deciding_value(keys: np.ndarray, target: np.ndarray) -> tuple[str | float, int, float] | None:
    """Return the value of a column, in most rows, whose rows all have one answer: it and how many.

    None where it is in few rows, or where rows drawn at random would often have one answer, too.
    """
    answers, codes, totals = np.unique(target, return_inverse=True, return_counts=True)
    values, places, counts = np.unique(keys, return_inverse=True, return_counts=True)
    for at in (-counts).argsort(kind="stable"):
        if counts[at] < LEAST_SHARE * len(keys):
            return None
        held = codes[places == at]
        if (held == held[0]).all() and (totals[held[0]] / len(keys)) ** counts[at] < CHANCE:
            return values[at], int(counts[at]), float(answers[held[0]])
    return None
