"""An effective rank beside its level of chance, as a small strip for one row of a table."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import fixed
from bilens.report.svg import Axis, drawing, element, line, rectangle

WIDTH, HEIGHT = 180.0, 22.0
THINNEST = 3.0  # a bar narrower than this would not be seen


def rank_strip(t: Catalogue, reading: dict[str, Any], largest: float) -> Markup:
    """Return a dot for the rank and a bar for the interval of chance, on a scale from 0."""
    x = Axis(0, largest or 1.0, 4, WIDTH - 8)
    chance, rank = reading["effective_rank_chance"], reading["effective_rank"]
    start, end = x(chance["low"]), x(chance["high"])
    width = max(end - start, THINNEST)
    middle = HEIGHT / 2
    text = t(
        "ranks.picture_title",
        rank=fixed(rank, 1),
        low=fixed(chance["low"], 1),
        high=fixed(chance["high"], 1),
    )
    return drawing(
        WIDTH,
        HEIGHT,
        text,
        t("ranks.legend"),
        line(x(0), middle, WIDTH - 4, middle, "axis"),
        rectangle((start + end - width) / 2, 4, width, HEIGHT - 8, "chance"),
        element("circle", cx=x(rank), cy=middle, r=5.0, class_="dot"),
        class_="chart strip",
    )
