"""Reads the numbers of a column: the curve of their ranks, and values that may stand for none.

The curve is part of how the column is read. What may stand for no value is said, never changed.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

import numpy as np

from bilens.records.column_readings import CellConversion

if TYPE_CHECKING:  # pages read columns without torch
    from torch import Tensor

KNOTS = 33  # points of a curve, at most
DIGITS = 9  # of a share of the rows, when points are chosen: a row twice is one of weight 2
MOST_KINDS = 3  # different values beyond the largest gap, that may stand for none
FEW_VALUES = 10  # different ones, of which a range says little
FAR, FARTHER = 3.0, 10.0  # ranges of the others to the next of them; where these are few values
Curve = tuple[tuple[float, float], ...]  # values, rising, with their ranks; empty for none


def rank_curve(values: Tensor, weights: Tensor) -> Curve:
    """Return values with the share of rows below each, half of the equal ones counted.

    Between them the rank is read off straight lines, beyond them it is that of the last one. A
    column of two values has no curve: its rank would be the same input in another unit.
    """
    known = ~values.isnan()
    x, where = np.unique(values[known].cpu().numpy(), return_inverse=True)
    if len(x) < 3:
        return ()
    counts = np.bincount(where, weights[known].cpu().numpy())
    ranks = (counts.cumsum() - counts / 2) / counts.sum()
    if len(x) > KNOTS:
        wanted = np.linspace(ranks[0], ranks[-1], KNOTS).round(DIGITS)
        at = np.unique(ranks.round(DIGITS).searchsorted(wanted).clip(0, len(x) - 1))
        x, ranks = x[at], ranks[at]
    return tuple(zip(x.tolist(), ranks.tolist(), strict=True))


def follow_curve(values: Iterable[float], curve: Curve) -> list[float]:
    """Return the ranks of values, or the values where there is no curve; NaN stays NaN."""
    if not curve:
        return [*values]
    knots, heights = zip(*curve, strict=True)
    ranks: list[float] = np.interp([*values], knots, heights).tolist()
    return ranks


def value_at(rank: float, curve: Curve) -> float:
    """Return the value of a rank: the least or most of the training rows for all beyond them."""
    values, ranks = zip(*curve, strict=True)
    return float(np.interp(rank, ranks, values))


def follow_curves(x: Tensor, curves: Sequence[Curve]) -> Tensor:
    """Return rows as a model reads them, a curve for each column of x, (rows, columns)."""
    if not any(curves):
        return x
    columns = [follow_curve(part.tolist(), curve) for part, curve in zip(x.T, curves, strict=True)]
    return x.double().new_tensor(columns).T.contiguous()


def odd_numbers(name: str, values: Sequence[float]) -> list[CellConversion]:
    """Return a sentence on each value of a column that may stand for none."""
    found = []
    for value, count, low, high in stand_ins(values):
        said = {"text": f"{value:.10g}", "low": f"{low:.10g}", "high": f"{high:.10g}"}
        found.append(CellConversion.of_kind("sentinel", column=name, count=count, **said))
    return found


def stand_ins(values: Sequence[float]) -> list[tuple[float, int, float, float]]:
    """Return values that repeat far outside all others, how often, and from where these reach."""
    x, counts = np.unique([v for v in values if v == v], return_counts=True)
    found: list[tuple[float, int, float, float]] = []
    for kinds in range(1, min(MOST_KINDS, len(x) - 2) + 1):
        for odd, rest in ((slice(-kinds, None), x[:-kinds]), (slice(kinds), x[kinds:])):
            low, high = float(rest[0]), float(rest[-1])
            gap = max(x[odd][0] - high, low - x[odd][-1])
            far = (FAR if len(rest) >= FEW_VALUES else FARTHER) * (high - low)
            if gap > far and counts[odd].min() >= 2:
                pairs = zip(x[odd].tolist(), counts[odd].tolist(), strict=True)
                found += [(value, count, low, high) for value, count in pairs]
        if found:
            return found
    return found
