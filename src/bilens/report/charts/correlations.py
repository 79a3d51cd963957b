"""How well few eigenvectors predict output latents: by their number, and as a distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bilens.report.charts.plane import Plane
from bilens.report.numbers import whole
from bilens.report.svg import drawing, element, label, line, polyline

WIDTH, HEIGHT = 460.0, 300.0
KINDS = ("all", "active", "null", "null_active")
MEDIAN, LOWER, UPPER = 2, 1, 3  # places among the quantiles


def by_rank(
    title: str, description: str, axes: tuple[str, str], ranks: Sequence[dict[str, Any]]
) -> Markup:
    """Return the median correlation against the number of eigenvectors, with the middle half.

    Args:
        title: of the drawing.
        description: what it shows, for those who cannot see it.
        axes: the names of both axes.
        ranks: of the document.
    """
    last = math.log2(ranks[-1]["rank"]) or 1.0
    lows = [rank[kind]["values"][LOWER] for rank in ranks for kind in KINDS if rank[kind]["values"]]
    low = math.floor(4 * min(0.0, *lows, 0.0)) / 4
    plane = Plane.of((-0.15 * last, 1.1 * last), (low - 0.02, 1.02), (WIDTH, HEIGHT))
    x, y = plane.x, plane.y
    parts = plane.grid(*axes, marks=[])
    for rank in ranks:
        place = x(math.log2(rank["rank"]))
        parts.append(label(place, plane.base + 16, whole(rank["rank"]), "tick", "middle"))
    for kind in reversed(KINDS):
        known = [rank for rank in ranks if rank[kind]["values"]]
        places = [x(math.log2(rank["rank"])) for rank in known]
        quantiles = [[y(value) for value in rank[kind]["values"]] for rank in known]
        shift = {"all": -3, "active": 3}.get(kind)
        if shift is not None:
            for place, values in zip(places, quantiles, strict=True):
                parts.append(
                    line(
                        place + shift,
                        values[LOWER],
                        place + shift,
                        values[UPPER],
                        f"kind {series(kind)}",
                    )
                )
        points = [(p + (shift or 0), q[MEDIAN]) for p, q in zip(places, quantiles, strict=True)]
        parts.append(polyline(points, f"kind {series(kind)}"))
        parts += [
            element("circle", cx=px, cy=py, r=3.0, class_=f"dot {series(kind)}")
            for px, py in points
        ]
    return drawing(WIDTH, HEIGHT, title, description, *parts, class_="chart")


def histogram(
    title: str,
    description: str,
    axes: tuple[str, str],
    edges: Sequence[float],
    rank: dict[str, Any],
) -> Markup:
    """Return how many output latents have which correlation, one outline for each kind.

    Args:
        title: of the drawing.
        description: what it shows, for those who cannot see it.
        axes: the names of both axes.
        edges: of the bins.
        rank: of the document, the one that is shown.
    """
    most = max(1, *(count for kind in KINDS for count in rank[kind]["counts"]))
    plane = Plane.of((-1.05, 1.05), (0.0, 1.05 * most), (WIDTH, HEIGHT))
    parts = plane.grid(*axes)
    for kind in reversed(KINDS):
        corners = [(edges[0], 0.0)]
        for place, count in enumerate(rank[kind]["counts"]):
            corners += [(edges[place], float(count)), (edges[place + 1], float(count))]
        corners.append((edges[-1], 0.0))
        points = [(plane.x(at), plane.y(count)) for at, count in corners]
        parts.append(polyline(points, f"kind {series(kind)}"))
    return drawing(WIDTH, HEIGHT, title, description, *parts, class_="chart")


def series(kind: str) -> str:
    """Return the class that colours a kind of correlation."""
    return f"kind-{kind.replace('_', '-')}"
