"""Points on a plane, with names where there is room."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bilens.report.charts.plane import RIGHT, SIZE, TOP, Plane, padded
from bilens.report.svg import drawing, element, fitted, label, polyline, text_width

WIDTH, HEIGHT = 380.0, 300.0
NAME_WIDTH = 130.0
Box = tuple[float, float, float, float]  # left, top, right, bottom


def named_points(
    title: str,
    description: str,
    axes: tuple[str, str],
    points: Sequence[tuple[float, float]],
    names: Sequence[str],
) -> Markup:
    """Return points with their names; a name that would cover another one is left out.

    Args:
        title: of the drawing.
        description: what it shows, for those who cannot see it.
        axes: the names of both axes.
        points: x and y, the most important first.
        names: one for each point.
    """
    ranges = padded(x for x, _ in points), padded(y for _, y in points)
    plane = Plane.of(*ranges, (WIDTH, HEIGHT))
    places = [(plane.x(x), plane.y(y)) for x, y in points]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in places]
    parts = []
    for place, (name, (x, y)) in enumerate(zip(names, places, strict=True)):
        class_ = "pos strong" if points[place][0] >= 0 else "neg strong"
        parts.append(element("circle", element("title", name), cx=x, cy=y, r=4.0, class_=class_))
        parts += placed_name(fitted(name, SIZE, NAME_WIDTH), x, y, plane, taken)
    return drawing(WIDTH, HEIGHT, title, description, *plane.grid(*axes), *parts, class_="chart")


def placed_name(text: str, x: float, y: float, plane: Plane, taken: list[Box]) -> list[Markup]:
    """Return a name beside its point where nothing else is, and mark the place as taken."""
    width = text_width(text, SIZE)
    for left, base, anchor, at in (
        (x + 7, y + 4, "start", x + 7),
        (x - 7 - width, y + 4, "end", x - 7),
        (x - width / 2, y - 8, "middle", x),
        (x - width / 2, y + 17, "middle", x),
    ):
        box = (left, base - SIZE + 1, left + width, base + 3)
        across = plane.x.start + 4 <= box[0] and box[2] <= plane.width - RIGHT / 2
        inside = across and box[1] >= TOP / 2 and box[3] <= plane.base
        if inside and not any(overlap(box, other) for other in taken):
            taken.append(box)
            return [label(at, base, text, "point-name", anchor)]
    return []


def overlap(first: Box, second: Box) -> bool:
    """Return whether two boxes have a common point."""
    return (
        first[0] < second[2]
        and second[0] < first[2]
        and first[1] < second[3]
        and second[1] < first[3]
    )


def agreement_points(
    title: str,
    description: str,
    axes: tuple[str, str],
    truth: Sequence[float],
    found: Sequence[float],
    active: Sequence[bool],
) -> Markup:
    """Return an approximation against the truth, with the line on which both are equal.

    Args:
        title: of the drawing.
        description: what it shows.
        axes: the names of both axes, the approximation first.
        truth: upwards.
        found: to the right, the approximation.
        active: whether a point is drawn as an active one.
    """
    plane = Plane.of(padded(found), padded(truth), (WIDTH, HEIGHT))
    low, high = max(plane.x.low, plane.y.low), min(plane.x.high, plane.y.high)
    ordered = sorted(zip(active, found, truth, strict=True))  # active ones on top
    return drawing(
        WIDTH,
        HEIGHT,
        title,
        description,
        *plane.grid(*axes),
        polyline([(plane.x(v), plane.y(v)) for v in (low, high)], "edge"),
        *(
            element(
                "circle",
                cx=plane.x(x),
                cy=plane.y(y),
                r=2.5 if is_active else 1.8,
                class_="speck active" if is_active else "speck",
            )
            for is_active, x, y in ordered
        ),
        class_="chart",
    )
