"""Where a weighting of inputs lies, in words: the part of an image, or inputs by their names."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from itertools import accumulate
from typing import Final

from bilens.records.common import ModelSummary
from bilens.report.sections.overview import input_name
from bilens.report.text import Catalogue

MOST_NAMED = 3  # inputs
TAIL = 0.1  # of the weight at either end that a place leaves out
WIDE = 2 / 3  # of a side: what spans more has no place along it
NAMES: Final = (
    ("upper_left", "upper", "upper_right"),
    ("left", "centre", "right"),
    ("lower_left", "lower", "lower_right"),
)


def place(t: Catalogue, model: ModelSummary, weights: Sequence[float], *, brief: bool) -> str:
    """Return where most of the weights lie; their sizes count, not their signs.

    Of an image the part with rows and columns, from 0, unless `brief`; of other inputs the names
    of the heaviest.
    """
    sizes = [abs(weight) for weight in weights]
    rows, columns = model.input_shape
    if min(rows, columns) < len(NAMES) or model.input_names is not None:
        order = sorted(range(len(sizes)), key=lambda index: -sizes[index])
        heaviest = order[: 1 if brief else MOST_NAMED]
        return t.listing([input_name(t, model, index) for index in heaviest])
    ends, parts = [], []
    for side, start, step in ((rows, columns, 1), (columns, 1, columns)):
        # the weight of each row, and then of each column
        lines = (sizes[i * start :: step][: len(sizes) // side] for i in range(side))
        sums = [*accumulate(map(sum, lines))]
        first = bisect_right(sums, TAIL * sums[-1]) % side  # 0 where all weights are zero
        last = max(first, bisect_left(sums, (1 - TAIL) * sums[-1]))
        ends += [first, last]
        third = min(int(1.5 * (first + last + 1) / side), 2)
        parts.append(None if last - first >= WIDE * side or not sums[-1] else third)
    if parts == [None, None]:
        name = t("place.whole")
    else:
        row, column = (1 if each is None else each for each in parts)
        name = t(f"place.{NAMES[row][column]}")
    box = dict(zip(("top", "bottom", "left", "right"), ends, strict=True))
    return name if brief else t("place.box", name=name, **box)
