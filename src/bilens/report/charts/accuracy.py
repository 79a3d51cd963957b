"""Accuracy on a scale from 0 to 100 %, with its interval."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import percent
from bilens.report.svg import Axis, drawing, element, label, line, rectangle

WIDTH, HEIGHT = 440.0, 56.0


def accuracy_bar(t: Catalogue, share: dict[str, Any]) -> Markup:
    """Return a bar up to the accuracy, and the interval over it."""
    x = Axis(0, 1, 8, WIDTH - 12)
    low, high, value = x(share["low"]), x(share["high"]), x(share["value"])
    texts = {key: percent(share[key]) for key in ("value", "low", "high")}
    ends = ("start", "middle", "middle", "middle", "end")
    return drawing(
        WIDTH,
        HEIGHT,
        t("accuracy.chart"),
        t("accuracy.chart_text", **texts),
        rectangle(x(0), 12, x(1) - x(0), 14, "track"),
        rectangle(x(0), 12, value - x(0), 14, "fill"),
        line(low, 19, high, 19, "whisker"),
        line(low, 11, low, 27, "whisker"),
        line(high, 11, high, 27, "whisker"),
        element("circle", cx=value, cy=19, r=3.5, class_="whisker-dot"),
        *(
            label(x(part / 4), 46, percent(part / 4, 0), "tick", anchor)
            for part, anchor in enumerate(ends)
        ),
        class_="chart accuracy-bar",
    )
