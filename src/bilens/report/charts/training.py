"""Curves over the steps of a run or of a study, as a file that stands alone."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.report.catalogue import load_catalogue
from bilens.report.plot import Axis, Plot, rounded
from bilens.report.svg import element, joined, label, polyline, text_width

START, LEGEND = 24.0, 52.0  # left edge of title and legend; height of the legend
KEY, SPACE, BETWEEN = 26.0, 6.0, 16.0  # a piece of line; gaps before and after a name
KEY_LETTERS = 13.0
COLOURS = ("#0b4f94", "#c2410c", "#15803d", "#7e22ce", "#475569", "#a16207")
STYLE = (
    ".key{font-size:13px}.tick{font-size:12px;fill:#55606f;font-variant-numeric:tabular-nums}"
    ".grid,.zero{stroke:#e3e7ec}.curve{fill:none;stroke-width:2;stroke-linejoin:round}"
)


@dataclass(frozen=True)
class Curve:
    """Points by rising x and the name in the legend; dashed is a curve to compare with."""

    name: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


def line_figure(
    title: str, x_name: str, y_name: str, curves: Sequence[Curve], *, description: str = ""
) -> str:
    """Return an SVG file; the axes hold all points of all curves and end at round numbers."""
    points = [point for curve in curves for point in curve.points]
    plot = Plot(
        Axis(*rounded(x for x, _ in points), "{:,.10g}".format, x_name, "none"),
        Axis(*rounded(y for _, y in points), "{:,.4g}".format, y_name),
        720,
        420,
        top=84,
        right=24,
    )
    figure = plot.figure(
        title,
        description or f"{y_name} / {x_name}",
        label(START, 34, title, "title"),
        legend(curves, plot.end),
        *(curve_mark(plot, curve, index) for index, curve in enumerate(curves)),
    )
    return figure.file(STYLE)


def coloured(mark: Markup, curve: Curve, index: int) -> Markup:
    """Return a mark in the colour and the dashes of a curve."""
    colour = COLOURS[index % len(COLOURS)]
    return element("g", mark, stroke=colour, stroke_dasharray="6 4" if curve.dashed else None)


def curve_mark(plot: Plot, curve: Curve, index: int) -> Markup:
    """Return a curve; one of a single point is a dot."""
    if len(curve.points) == 1:
        (x, y) = curve.points[0]
        colour = COLOURS[index % len(COLOURS)]
        return element("circle", cx=plot.across(x), cy=plot.upwards(y), r=4, fill=colour)
    return coloured(plot.line(curve.points), curve, index)


def legend(curves: Sequence[Curve], right: float) -> Markup:
    """Return names beside pieces of their lines, from right to left; gaps shrink to fit."""
    widths = [text_width(curve.name, KEY_LETTERS) for curve in curves]
    room = right - START - sum(widths) - len(curves) * (KEY + SPACE)
    between = min(BETWEEN, max(room, 0.0) / max(len(curves) - 1, 1))
    parts: list[Markup] = []
    for index, curve in reversed([*enumerate(curves)]):
        start = right - widths[index]
        piece = polyline([(start - KEY - SPACE, LEGEND), (start - SPACE, LEGEND)], "curve")
        parts += [coloured(piece, curve, index), label(start, LEGEND + 4, curve.name, "key")]
        right = start - KEY - SPACE - between
    return joined(*parts)


def loss_figure(lines: Sequence[tuple[int, float, float]], lang: str = "en") -> str:
    """Return the losses of a language model as a file; a line is step, training, held-out loss."""
    t = load_catalogue(lang)
    curves = [
        Curve(t("loss.held_out"), tuple((step, held_out) for step, _, held_out in lines)),
        Curve(t("loss.train"), tuple((step, train) for step, train, _ in lines), dashed=True),
    ]
    best, last = min(held_out for *_, held_out in lines), lines[-1][0]
    description = t("loss.text", best=f"{best:.4f}", step=f"{last:,}")
    return line_figure(
        t("loss.title"), t("loss.step"), t("loss.nats"), curves, description=description
    )
