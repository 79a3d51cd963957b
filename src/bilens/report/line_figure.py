"""A drawing of curves that stands alone: white background, no script, no reference."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.report.svg import Axis, element, label, line, polyline, text_width

WIDTH, HEIGHT = 720.0, 420.0
LEFT, RIGHT, TOP, BOTTOM = 64.0, 24.0, 84.0, 56.0
START = 24.0  # of title, legend and the name of the axis upwards
LEGEND_SIZE, KEY, SPACE, BETWEEN = 13.0, 26.0, 6.0, 16.0  # of its letters; a piece of line; gaps
MOST_TICKS = 6
COLOURS = ("#0b4f94", "#c2410c", "#15803d", "#7e22ce", "#475569", "#a16207")
STYLE = (
    'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,'
    '"Hiragino Sans","Noto Sans CJK JP",sans-serif;fill:#1c2430}'
    ".title{font-size:20px;font-weight:650}.key{font-size:13px}"
    ".tick{font-size:12px;fill:#55606f;font-variant-numeric:tabular-nums}"
    ".grid{stroke:#e3e7ec}.curve{fill:none;stroke-width:2;stroke-linejoin:round}"
)


@dataclass(frozen=True)
class Curve:
    """One curve.

    Attributes:
        name: what the legend says.
        points: (x, y), by rising x.
        dashed: drawn with gaps, as a curve to compare with.
    """

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


def line_figure(
    title: str, x_name: str, y_name: str, curves: Sequence[Curve], *, description: str = ""
) -> str:
    """Return the drawing as an SVG file; the axes hold all points and end at round numbers.

    Args:
        title: over the drawing.
        x_name: of the axis to the right.
        y_name: of the axis upwards.
        curves: at least one, each with at least one point.
        description: for those who cannot see it.
    """
    points = [point for curve in curves for point in curve.points]
    x_ticks = round_ticks([x for x, _ in points])
    y_ticks = round_ticks([y for _, y in points])
    x = Axis(x_ticks[0], x_ticks[-1], LEFT, WIDTH - RIGHT)
    y = Axis(y_ticks[0], y_ticks[-1], HEIGHT - BOTTOM, TOP)
    svg = element(
        "svg",
        element("title", title),
        element("desc", description or f"{y_name} / {x_name}"),
        element("style", Markup(STYLE)),  # noqa: S704 - a constant
        element("rect", width=WIDTH, height=HEIGHT, fill="#ffffff"),
        label(START, 34, title, "title"),
        *grid(x, y, x_ticks, y_ticks),
        label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 14, x_name, "tick", "middle"),
        label(START, TOP - 12, y_name, "tick"),
        *legend(curves),
        *(drawn(curve, index, x, y) for index, curve in enumerate(curves)),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH:g} {HEIGHT:g}",
        width=WIDTH,
        height=HEIGHT,
        role="img",
    )
    return f"{svg}\n"


def drawn(curve: Curve, index: int, x: Axis, y: Axis) -> Markup:
    """Return a curve; one of a single point is a dot."""
    places = [(x(a), y(b)) for a, b in curve.points]
    colour = COLOURS[index % len(COLOURS)]
    if len(places) == 1:
        return element("circle", cx=places[0][0], cy=places[0][1], r=4, fill=colour)
    dashes = "6 4" if curve.dashed else None
    return element("g", polyline(places, "curve"), stroke=colour, stroke_dasharray=dashes)


def grid(x: Axis, y: Axis, x_ticks: Sequence[float], y_ticks: Sequence[float]) -> list[Markup]:
    """Return the level lines and the numbers of both axes."""
    parts = []
    for value in y_ticks:
        parts.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"))
        parts.append(label(LEFT - 8, y(value) + 4, f"{value:,.4g}", "tick", "end"))
    for value in x_ticks:
        parts.append(label(x(value), HEIGHT - BOTTOM + 18, f"{value:,.10g}", "tick", "middle"))
    return parts


def legend(curves: Sequence[Curve]) -> list[Markup]:
    """Return the names of the curves beside pieces of their lines, from right to left.

    Where many names would reach beyond the start of the title, the gaps between them shrink.
    """
    parts: list[Markup] = []
    right = WIDTH - RIGHT
    widths = [text_width(curve.name, LEGEND_SIZE) for curve in curves]
    room = right - START - sum(widths) - len(curves) * (KEY + SPACE)
    between = min(BETWEEN, max(room, 0.0) / max(len(curves) - 1, 1))
    for index, curve in reversed([*enumerate(curves)]):
        start = right - widths[index]
        colour = COLOURS[index % len(COLOURS)]
        dashes = "6 4" if curve.dashed else None
        piece = polyline([(start - KEY - SPACE, 52), (start - SPACE, 52)], "curve")
        parts += [
            element("g", piece, stroke=colour, stroke_dasharray=dashes),
            label(start, 56, curve.name, "key"),
        ]
        right = start - KEY - SPACE - between
    return parts


def round_ticks(values: Sequence[float]) -> tuple[float, ...]:
    """Return a few evenly spaced round numbers; the first and the last one hold all values."""
    low, high = min(values), max(values)
    span = (high - low) or abs(high) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / MOST_TICKS))
    step = next(unit * n for n in (1, 2, 5, 10) if span <= MOST_TICKS * unit * n)
    first, last = math.floor(low / step), math.ceil(high / step)
    last = max(last, first + 1)
    return tuple(round(step * place, 12) for place in range(first, last + 1))
