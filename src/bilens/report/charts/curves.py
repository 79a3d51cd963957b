"""Curves and fields: right answers, perturbations, answers to data, columns, steps of a run."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.records.performance import Answer, Classification
from bilens.report.markup import Figure, element, joined, label, line, polyline
from bilens.report.plot import (
    LARGE,
    SHARES,
    Axis,
    Plot,
    Points,
    Range,
    Texts,
    padded,
    rounded,
    sign_class,
    within,
)
from bilens.report.text import (
    Catalogue,
    floored,
    grouped,
    load_catalogue,
    percent,
    quantity,
    text_width,
    tick_text,
)

KEPT = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # ticks of k
CLOSEST = 0.07  # between two ticks, as a share of the axis

START, LEGEND = 24.0, 52.0  # left edge of title and legend; height of the legend
KEY, SPACE, BETWEEN = 26.0, 6.0, 16.0  # a piece of line; gaps before and after a name
KEY_LETTERS = 13.0
COLOURS = ("#0b4f94", "#c2410c", "#15803d", "#7e22ce", "#475569", "#a16207")
STYLE = (
    ".key{font-size:13px}.tick{font-size:12px;fill:#55606f;font-variant-numeric:tabular-nums}"
    ".grid,.zero{stroke:#e3e7ec}.curve{fill:none;stroke-width:2;stroke-linejoin:round}"
)


def truncation_chart(
    t: Catalogue, accuracy: Points, agreement: Points, mark: tuple[int, float] | None
) -> Figure:
    """Return accuracy and agreement against the number k of eigenvectors kept.

    The axis is log(1 + k), so that 0 has a corner. The last point is the whole model; `mark` is
    where few directions are enough.
    """
    last, full = accuracy[-1]
    room = (1 - CLOSEST) * math.log1p(last)
    ticks = [*(k for k in KEPT if math.log1p(k) < room), last]
    kept = Axis(Range(0, last or 1, ticks), grouped, t("truncation.x"), "short", math.log1p)
    plot = Plot(kept, SHARES, 560, 328, "chart wide truncation", LARGE, top=54)
    shown = percent(full)
    marks = [
        plot.level(full),
        plot.line(agreement, "curve second"),
        plot.line(accuracy),
        plot.dots(accuracy, radius=3.5),
    ]
    if mark is not None:
        k, value = mark
        words = t("truncation.mark", k=grouped(k), value=percent(value))
        marks.append(plot.pointer(k, value, words))
    names = [
        ("curve", t("truncation.accuracy")),
        ("curve second", t("truncation.agreement")),
        ("edge", t("truncation.full", value=shown)),
    ]
    return plot.figure(
        t("truncation.chart"),
        t("truncation.chart_text", first=percent(accuracy[0][1]), full=shown, of=grouped(last)),
        *marks,
        plot.legend(names),
    )


def radii_chart(t: Catalogue, curve: Points, median: float | None) -> Figure:
    """Return certified accuracy against the length of a change, rising from 0.

    Between two lengths the share at the larger one is drawn: a lower bound everywhere.
    """
    end, last = curve[-1]
    ticks = [end * part / 5 for part in range(6)]
    lengths = Axis(Range(0, end, ticks), lambda value: quantity(value, 2), t("radii.x"), "short")
    plot = Plot(lengths, SHARES, 560, 300, "chart wide radii", LARGE, top=26, right=20)
    marks = [plot.steps(curve)]
    if median:
        words = t("radii.median", value=floored(median))
        marks.append(plot.pointer(median, 0.5, words))
    first, least = (percent(share, toward=-1) for share in (curve[0][1], last))
    ends = {"first": first, "last": least, "end": floored(end)}
    return plot.figure(t("radii.chart"), t("radii.chart_text", **ends), *marks)


def effect_chart(
    texts: Texts,
    x_name: str,
    epsilons: Sequence[float],
    curves: Sequence[tuple[str, Sequence[float]]],
    upwards: Axis,
) -> Figure:
    """Return one effect of perturbations against their length, a line for each class of curves."""
    ticks, apart = [epsilons[0]], max(CLOSEST, 0.04 * len(f"{epsilons[-1]:g}"))  # room of a number
    for epsilon in epsilons:
        if epsilon - ticks[-1] >= apart * (epsilons[-1] - epsilons[0]):
            ticks.append(epsilon)
    span = Range(epsilons[0], epsilons[-1], ticks)
    lengths = Axis(span, "{:g}".format, x_name, "none")
    plot = Plot(lengths, upwards, 380, 270, "chart wide effect", LARGE)
    marks = []
    for class_, values in curves:
        points = [*zip(epsilons, values, strict=True)]
        marks += [plot.line(points, f"kind {class_}"), plot.dots(points, f"dot {class_}", 2.5)]
    return plot.figure(*texts, *marks)


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
    across = Axis(rounded(x for x, _ in points), "{:,.10g}".format, x_name, "none")
    upwards = Axis(rounded(y for _, y in points), "{:,.4g}".format, y_name)
    plot = Plot(across, upwards, 720, 420, top=84, right=24)
    marks = []
    for index, curve in enumerate(curves):
        if len(curve.points) > 1:
            marks.append(colour_mark(plot.line(curve.points), curve, index))
        else:
            ((x, y),) = curve.points
            colour = COLOURS[index % len(COLOURS)]
            marks.append(element("circle", cx=plot.across(x), cy=plot.upwards(y), r=4, fill=colour))
    head = label(START, 34, title, "title"), legend(curves, plot.end)
    figure = plot.figure(title, description or f"{y_name} / {x_name}", *head, *marks)
    return figure.file(STYLE)


def colour_mark(mark: Markup, curve: Curve, index: int) -> Markup:
    """Return a mark in the colour and the dashes of a curve."""
    colour = COLOURS[index % len(COLOURS)]
    return element("g", mark, stroke=colour, stroke_dasharray="6 4" if curve.dashed else None)


def legend(curves: Sequence[Curve], right: float) -> Markup:
    """Return names beside pieces of their lines, from right to left; gaps shrink to fit."""
    widths = [text_width(curve.name, KEY_LETTERS) for curve in curves]
    room = right - START - sum(widths) - len(curves) * (KEY + SPACE)
    between = min(BETWEEN, max(room, 0.0) / max(len(curves) - 1, 1))
    parts: list[Markup] = []
    for index, curve in reversed([*enumerate(curves)]):
        start = right - widths[index]
        piece = polyline([(start - KEY - SPACE, LEGEND), (start - SPACE, LEGEND)], "curve")
        parts += [colour_mark(piece, curve, index), label(start, LEGEND + 4, curve.name, "key")]
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
    text = t("loss.text", best=f"{best:.4f}", step=f"{last:,}")
    title, x_name, y_name = t.each("loss", ("title", "step", "nats"))
    return line_figure(title, x_name, y_name, curves, description=text)


def share_charts(t: Catalogue, found: Classification, names: Sequence[str]) -> list[Figure]:
    """Return accuracy against confidence, with intervals; and both curves of two classes."""
    charts, dots = [], [(one.confidence, one.accuracy.value) for one in found.reliability]
    for key, curve in (
        ("reliability", dots),
        ("roc", found.roc),
        ("precision_recall", found.precision_recall),
    ):
        if not curve:
            continue
        shown = {"name": names[-1], "other": names[0]}  # curves are of two classes alone
        keys = ("caption", "text", "x", "y")
        caption, text, *sides = t.each(f"performance.{key}", keys, **shown)
        x, y = (Axis(SHARES.span, SHARES.text, side) for side in sides)
        plot = Plot(x, y, 340, 300, right=20)
        marks = [plot.dots(curve) if key == "reliability" else plot.line(curve)]
        if key != "precision_recall":
            marks.append(plot.line([(0, 0), (1, 1)], "curve second"))
        for one in found.reliability if key == "reliability" else ():
            place, ends = plot.across(one.confidence), (one.accuracy.low, one.accuracy.high)
            low, high = map(plot.upwards, ends)
            marks.append(line(place, low, place, high, "whisker"))
        charts.append(plot.figure(caption, text, *marks))
    return charts


def residual_chart(t: Catalogue, rows: Sequence[Answer]) -> Figure:
    """Return target − prediction against the prediction."""
    caption, text, *names = t.each("performance.residuals", ("caption", "text", "x", "y"))
    points = [(row.predicted, row.target - row.predicted) for row in rows]
    sides = zip(names, zip(*points, strict=True), strict=True)
    x, y = (Axis(padded(values, 6), name=name) for name, values in sides)
    plot = Plot(x, y, 560, 300, right=20)
    return plot.figure(caption, text, plot.dots(points, radius=2.5))


def response_curve(
    texts: tuple[str, str], name: str, points: Sequence[tuple[float, float]], every: Sequence[float]
) -> Figure:
    """Return the effect of one column, with room for the effects of `every` chart beside it."""
    x = Axis(within(points[0][0], points[-1][0], 5), tick_text, name, "short")
    plot = Plot(x, Axis(padded(every, 6), tick_text), 440, 220, "chart wide response", LARGE)
    return plot.figure(*texts, plot.line(points))


def pair_field(
    texts: tuple[str, str], names: tuple[str, str], field: Mapping[tuple[float, float], float]
) -> Figure:
    """Return the effects of two columns, by their values, as cells: blue raises, red lowers."""
    xs, ys = (sorted({point[side] for point in field}) for side in (0, 1))
    half = (xs[1] - xs[0]) / 2, (ys[1] - ys[0]) / 2
    x_axis, y_axis = (
        Axis(within(values[0] - room, values[-1] + room, 5), tick_text, name, "short")
        for values, room, name in zip((xs, ys), half, names, strict=True)
    )
    plot = Plot(x_axis, y_axis, 440, 300, "chart wide field", LARGE)
    largest = max(map(abs, field.values())) or 1.0
    cells = []
    for (x, y), value in field.items():
        left, right = plot.across(x - half[0]), plot.across(x + half[0])
        top, base = plot.upwards(y + half[1]), plot.upwards(y - half[1])
        box = {"x": left, "y": top, "width": right - left, "height": base - top}
        colour, shade = f"{sign_class(value)} strong", abs(value) / largest
        cells.append(element("rect", **box, class_=colour, fill_opacity=shade))
    return plot.figure(*texts, *cells)
