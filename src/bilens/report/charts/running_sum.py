"""A running sum, one small strip for each row of a table: each bar begins where the last ended."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import signed
from bilens.report.svg import Axis, drawing, line, rectangle

WIDTH, HEIGHT = 220.0, 30.0
THINNEST = 1.5


def running_axis(sums: Sequence[Sequence[float]]) -> Axis:
    """Return the axis on which every partial sum of several lists of steps has a place."""
    places = [0.0]
    for steps in sums:
        places += accumulate(steps)
    low, high = min(places), max(places)
    return Axis(low, high if high > low else low + 1.0, 6, WIDTH - 6)


def running_strip(
    t: Catalogue, x: Axis, start: float, step: float, class_: str, digits: int
) -> Markup:
    """Return the bar of one step, from `start` on; a thin line marks where the next one begins."""
    end = start + step
    left, right = sorted((x(start), x(end)))
    width = max(right - left, THINNEST)
    bar = [rectangle(left, 7, width, HEIGHT - 14, class_)] if step != 0 else []
    return drawing(
        WIDTH,
        HEIGHT,
        t("predictions.running_title", start=signed(start, digits), end=signed(end, digits)),
        t("predictions.running"),
        line(x(0), 0, x(0), HEIGHT, "zero"),
        *bar,
        line(x(end), HEIGHT / 2, x(end), HEIGHT, "link"),
        class_="chart strip",
    )
