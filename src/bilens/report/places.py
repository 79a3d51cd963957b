"""Where an input meets a pattern, in words: the part of what it shows, or inputs by their names."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import product
from typing import Final

from bilens.records.common import ModelSummary
from bilens.report.sections.overview import input_name
from bilens.report.text import Catalogue

MOST_NAMED = 3  # inputs
EVEN = 1 / 6  # of the weight: where the heaviest of nine parts has less, it lies everywhere
NAMES: Final = (
    ("upper_left", "upper", "upper_right"),
    ("left", "centre", "right"),
    ("lower_left", "lower", "lower_right"),
)


def place(t: Catalogue, model: ModelSummary, weights: Sequence[float], *, brief: bool) -> str:
    """Return where the weights with the sign of their sum are heaviest.

    Of an image it is one of nine parts of what is not zero, with rows and columns from 0 unless
    `brief`; of other inputs the names of the heaviest.
    """
    (rows, columns), sign = model.input_shape, 1 if sum(weights) >= 0 else -1
    sizes = [max(sign * weight, 0.0) for weight in weights]
    if min(rows, columns) < len(NAMES) or model.input_names is not None:
        order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
        heaviest = order[: 1 if brief else MOST_NAMED]
        return t.listing([input_name(t, model, index) for index in heaviest])
    lit = [divmod(index, columns) for index, weight in enumerate(weights) if weight] or [(0, 0)]
    boxes = [(min(axis), max(axis) + 1 - min(axis)) for axis in zip(*lit, strict=True)]
    sums = dict.fromkeys(product(range(3), repeat=2), 0.0)
    for at in lit:
        row, column = (3 * (x - low) // length for x, (low, length) in zip(at, boxes, strict=True))
        sums[row, column] += sizes[at[0] * columns + at[1]]
    part = max(sums, key=lambda each: sums[each])
    if sums[part] <= EVEN * sum(sizes):
        return t("place.whole")
    name, ends = t(f"place.{NAMES[part[0]][part[1]]}"), list[int]()
    for third, (low, length) in zip(part, boxes, strict=True):
        ends += [low - -third * length // 3, low - -(third + 1) * length // 3 - 1]
    box = dict(zip(("top", "bottom", "left", "right"), ends, strict=True))
    return name if brief else t("place.box", name=name, **box)
