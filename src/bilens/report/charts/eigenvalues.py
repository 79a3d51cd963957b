"""The leading eigenvalues of a form, as stems in their order."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bilens.report.charts.plane import Plane, padded
from bilens.report.svg import drawing, element, line

WIDTH, HEIGHT = 380.0, 220.0


def eigenvalue_chart(
    title: str, description: str, axes: tuple[str, str], values: Sequence[float]
) -> Markup:
    """Return a stem for each eigenvalue, by falling size.

    Args:
        title: of the drawing.
        description: what it shows, for those who cannot see it.
        axes: the names of both axes.
        values: signed.
    """
    plane = Plane.of((0.0, len(values) + 1.0), padded(values), (WIDTH, HEIGHT))
    parts = plane.grid(*axes)
    for place, value in enumerate(values, start=1):
        side = "pos" if value >= 0 else "neg"
        x, y = plane.x(place), plane.y(value)
        parts.append(line(x, plane.y(0), x, y, f"stem {side} strong"))
        parts.append(element("circle", cx=x, cy=y, r=4.0, class_=f"{side} strong"))
    return drawing(WIDTH, HEIGHT, title, description, *parts, class_="chart")
