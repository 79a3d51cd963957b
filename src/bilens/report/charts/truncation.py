"""Accuracy against the number of eigenvectors kept, on a logarithmic axis that begins at zero."""

from __future__ import annotations

import math
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import percent, whole
from bilens.report.svg import Axis, drawing, element, label, line, polyline

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 16.0, 26.0, 52.0
TICKS = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)
CLOSEST = 34.0  # between two ticks


def along(k: int) -> float:
    """Return the place of k on the axis: log(1 + k), so that 0 has a place too."""
    return math.log1p(k)


def truncation_chart(
    t: Catalogue, points: list[dict[str, Any]], mark: dict[str, Any] | None
) -> Markup:
    """Return accuracy and agreement against k.

    Args:
        t: the catalogue.
        points: of the document, by rising k; the last one is the whole model.
        mark: the values of the finding "few_directions", if there is one.
    """
    x = Axis(0, along(points[-1]["k"]) or 1.0, LEFT, WIDTH - RIGHT)
    y = Axis(0, 1, HEIGHT - BOTTOM, TOP)
    full = points[-1]
    return drawing(
        WIDTH,
        HEIGHT,
        t("truncation.chart"),
        t(
            "truncation.chart_text",
            first=percent(points[0]["accuracy"]),
            full=percent(full["accuracy"]),
            of=whole(full["k"]),
        ),
        *grid(t, x, y, full["k"]),
        line(LEFT, y(full["accuracy"]), WIDTH - RIGHT, y(full["accuracy"]), "edge"),
        label(
            WIDTH - RIGHT,
            y(full["accuracy"]) + 18,
            t("truncation.full", value=percent(full["accuracy"])),
            "note",
            "end",
        ),
        polyline([(x(along(p["k"])), y(p["agreement"])) for p in points], "curve second"),
        polyline([(x(along(p["k"])), y(p["accuracy"])) for p in points], "curve"),
        *(
            element("circle", cx=x(along(p["k"])), cy=y(p["accuracy"]), r=3.5, class_="dot")
            for p in points
        ),
        *marked(t, x, y, mark),
        *legend(t),
        class_="chart wide truncation",
    )


def grid(t: Catalogue, x: Axis, y: Axis, last: int) -> list[Markup]:
    """Return the lines and numbers of both axes."""
    parts = []
    for quarter in range(5):
        place = y(quarter / 4)
        parts.append(line(LEFT, place, WIDTH - RIGHT, place, "zero" if quarter == 0 else "grid"))
        parts.append(label(LEFT - 8, place + 4, percent(quarter / 4, 0), "tick", "end"))
    shown = [k for k in TICKS if x(along(k)) < x(along(last)) - CLOSEST] + [last]
    for k in shown:
        place = x(along(k))
        parts.append(line(place, HEIGHT - BOTTOM, place, HEIGHT - BOTTOM + 5, "axis"))
        parts.append(label(place, HEIGHT - BOTTOM + 19, whole(k), "tick", "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(label(middle, HEIGHT - 10, t("truncation.x"), "tick", "middle"))
    return parts


def marked(t: Catalogue, x: Axis, y: Axis, mark: dict[str, Any] | None) -> list[Markup]:
    """Return the point at which few directions are enough."""
    if mark is None:
        return []
    place, height = x(along(mark["k"])), y(mark["accuracy"])
    text = t("truncation.mark", k=whole(mark["k"]), value=percent(mark["accuracy"]))
    right = place < WIDTH * 0.7
    return [
        line(place, height + 8, place, HEIGHT - BOTTOM, "pointer"),
        element("circle", cx=place, cy=height, r=7.0, class_="ring"),
        label(
            place + (12 if right else -12), height + 30, text, "strong", "start" if right else "end"
        ),
    ]


def legend(t: Catalogue) -> list[Markup]:
    """Return which curve is which."""
    x, y = WIDTH * 0.4, HEIGHT - BOTTOM - 62
    return [
        line(x, y - 4, x + 28, y - 4, "curve"),
        label(x + 36, y, t("truncation.accuracy"), "note"),
        line(x, y + 18, x + 28, y + 18, "curve second"),
        label(x + 36, y + 22, t("truncation.agreement"), "note"),
    ]
