"""A running sum, one small strip for each row of a table: each bar begins where the last ended."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import signed
from bilens.report.svg import Axis, drawing, line, rectangle

WIDTH, HEIGHT = 220.0, 30.0
THINNEST = 1.5


def running_axis(steps: Sequence[float]) -> Axis:
    """Return the axis on which every partial sum of the steps has a place."""
    sums = [0.0]
    for step in steps:
        sums.append(sums[-1] + step)
    low, high = min(sums), max(sums)
    return Axis(low, high if high > low else low + 1.0, 6, WIDTH - 6)


def running_strip(t: Catalogue, x: Axis, start: float, step: float, class_: str) -> Markup:
    """Return the bar of one step, from `start` on; a thin line marks where the next one begins."""
    end = start + step
    left, right = sorted((x(start), x(end)))
    width = max(right - left, THINNEST)
    return drawing(
        WIDTH,
        HEIGHT,
        t("predictions.running_title", start=signed(start), end=signed(end)),
        t("predictions.running"),
        line(x(0), 0, x(0), HEIGHT, "zero"),
        rectangle(left, 7, width, HEIGHT - 14, class_),
        line(x(end), HEIGHT / 2, x(end), HEIGHT, "link"),
        class_="chart strip",
    )
