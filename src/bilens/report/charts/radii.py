"""Certified accuracy against the size of the change, as steps that never show too much."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import percent, quantity
from bilens.report.svg import Axis, drawing, element, label, line, polyline

WIDTH, HEIGHT = 560.0, 300.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 20.0, 26.0, 52.0
PARTS = 5  # of the axis of lengths


def radii_chart(t: Catalogue, curve: list[dict[str, Any]], median: float | None) -> Markup:
    """Return certified accuracy against length.

    Between two lengths the share at the larger one is drawn: a lower bound everywhere.

    Args:
        t: the catalogue.
        curve: of the document, by rising radius, from 0.
        median: of the radii; None where it is unlimited.
    """
    end = curve[-1]["radius"]
    x, y = Axis(0, end, LEFT, WIDTH - RIGHT), Axis(0, 1, HEIGHT - BOTTOM, TOP)
    return drawing(
        WIDTH,
        HEIGHT,
        t("radii.chart"),
        t(
            "radii.chart_text",
            first=percent(curve[0]["share"]),
            last=percent(curve[-1]["share"]),
            end=quantity(end),
        ),
        *grid(t, x, y, end),
        polyline(steps(x, y, curve), "curve"),
        *marked(t, x, y, median),
        class_="chart wide radii",
    )


def steps(x: Axis, y: Axis, curve: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Return the corners of the curve."""
    corners = [(x(0), y(curve[0]["share"]))]
    for before, after in pairwise(curve):
        height = y(after["share"])
        corners += [(x(before["radius"]), height), (x(after["radius"]), height)]
    return corners


def grid(t: Catalogue, x: Axis, y: Axis, end: float) -> list[Markup]:
    """Return the lines and numbers of both axes."""
    parts = []
    for quarter in range(5):
        place = y(quarter / 4)
        parts.append(line(LEFT, place, WIDTH - RIGHT, place, "zero" if quarter == 0 else "grid"))
        parts.append(label(LEFT - 8, place + 4, percent(quarter / 4, 0), "tick", "end"))
    for part in range(PARTS + 1):
        value = end * part / PARTS
        place = x(value)
        parts.append(line(place, HEIGHT - BOTTOM, place, HEIGHT - BOTTOM + 5, "axis"))
        parts.append(label(place, HEIGHT - BOTTOM + 19, quantity(value, 2), "tick", "middle"))
    middle = (LEFT + WIDTH - RIGHT) / 2
    parts.append(label(middle, HEIGHT - 10, t("radii.x"), "tick", "middle"))
    return parts


def marked(t: Catalogue, x: Axis, y: Axis, median: float | None) -> list[Markup]:
    """Return where half of the inputs are left."""
    if not median:
        return []
    place, text = x(median), t("radii.median", value=quantity(median))
    right = place < WIDTH * 0.6
    return [
        line(place, y(0.5), place, HEIGHT - BOTTOM, "pointer"),
        element("circle", cx=place, cy=y(0.5), r=6.0, class_="ring"),
        label(
            place + (14 if right else -14), y(0.5) - 8, text, "strong", "start" if right else "end"
        ),
    ]
