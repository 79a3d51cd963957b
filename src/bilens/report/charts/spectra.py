"""Spectra of classes and directions, ranks beside null intervals, and the layers of a model."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import fixed, quantity, signed_quantity
from bilens.report.plot import Axis, Plot, Scale, padded, within
from bilens.report.svg import Figure, circle, joined, label, line, rectangle

END = 20  # eigenvalues drawn at each end of a spectrum
GAP = 4  # slots left free where the middle is not drawn
MOST_NAMES = 8  # below the columns of layers
WIDEST = 34.0  # column of a layer
THINNEST = 3.0  # an interval narrower than this would not be seen


def spectrum_chart(
    t: Catalogue,
    name: str,
    eigenvalues: Sequence[float],
    null: tuple[float, float],
    significant: tuple[int, int],
) -> Figure:
    """Return the eigenvalues of a class by falling value, those beyond the null in full colour."""
    low, high = null
    drawn = spectrum_slots(eigenvalues)
    last = max(drawn[-1][0], 1)
    values = Axis(
        *padded([*eigenvalues, low, high], most=10),
        text=lambda value: signed_quantity(value, 1),
        lines="short",
    )
    plot = Plot(Axis(-1, last + 1), values, 440, 264, "chart spectrum", letters=14, right=8)
    x, y = plot.across, plot.upwards
    upper, lower = (t("spectrum.null", edge=signed_quantity(edge, 2)) for edge in (high, low))
    return plot.figure(
        t("spectrum.title", name=name),
        t(
            "spectrum.text",
            positive=significant[0],
            negative=significant[1],
            low=signed_quantity(low),
            high=signed_quantity(high),
            largest=signed_quantity(max(eigenvalues)),
            smallest=signed_quantity(min(eigenvalues)),
        ),
        *(
            plot.stem(slot, value, "strong" if beyond else "", 4.0 if beyond else 2.8)
            for slot, value in drawn
            for beyond in [value > high or value < low]
        ),
        label(plot.end - 4, y(high) + 14, upper, "note", "end"),
        label(plot.left + 4, y(low) - 5, lower, "note"),
        slot_names(t, plot, x, len(eigenvalues), len(drawn)),
        behind=plot.band(low, high),
    )


def spectrum_slots(values: Sequence[float]) -> list[tuple[int, float]]:
    """Return slot and value of each eigenvalue that is drawn: all, or both ends."""
    if len(values) <= 2 * END + GAP:
        return list(enumerate(values))
    return [*enumerate(values[:END]), *enumerate(values[-END:], start=END + GAP)]


def slot_names(t: Catalogue, plot: Plot, x: Scale, count: int, drawn: int) -> Markup:
    """Return which eigenvalues stand in the slots."""
    base = plot.height - 10
    if count == drawn:
        middle = (plot.left + plot.end) / 2
        return label(middle, base, t("spectrum.all", count=count), "tick", "middle")
    gap = (x(END - 1) + x(END + GAP)) / 2
    return joined(
        label(x(-0.5), base, t("spectrum.largest", count=END), "tick"),
        label(gap, base, t("spectrum.hidden", count=count - drawn), "tick", "middle"),
        label(plot.end, base, t("spectrum.smallest", count=END), "tick", "end"),
    )


def eigenvalue_chart(
    title: str, description: str, axes: tuple[str, str], values: Sequence[float]
) -> Figure:
    """Return a stem for each of the leading eigenvalues, in their order."""
    low, high, ticks = within(0, len(values) + 1)
    orders = [tick for tick in ticks if tick.is_integer()]
    plot = Plot(
        Axis(low, high, orders, name=axes[0]), Axis(*padded(values), name=axes[1]), 380, 220
    )
    stems = (plot.stem(order, value, "strong") for order, value in enumerate(values, start=1))
    return plot.figure(title, description, *stems)


def rank_strip(t: Catalogue, rank: float, null: tuple[float, float], largest: float) -> Figure:
    """Return a dot for an effective rank and a bar for the null interval, on a scale from 0."""
    width, middle = 180.0, 11.0
    x = Scale(0, largest or 1.0, 4, width - 8)
    start, end = (x(value) for value in null)
    thick = max(end - start, THINNEST)
    low, high = (fixed(value, 1) for value in null)
    content = joined(
        line(x(0), middle, width - 4, middle, "axis"),
        rectangle((start + end - thick) / 2, 4, thick, 2 * middle - 8, "null"),
        circle(x(rank), middle, 5.0, "dot"),
    )
    title = t("ranks.picture_title", rank=fixed(rank, 1), low=low, high=high)
    return Figure(title, t("ranks.legend"), width, 2 * middle, content, "chart strip")


@dataclass(frozen=True)
class Column:
    """One layer."""

    value: float | None  # how high; None where there is nothing to say
    inner: float | None = None  # a part of it, in full colour
    null: tuple[float, float] | None = None  # what chance would give
    marked: bool = False  # whether it stands out


def layer_columns(
    t: Catalogue,
    title: str,
    description: str,
    columns: Sequence[Column],
    *,
    top: float | None = None,
    level: float | None = None,
) -> Figure:
    """Return a column for each layer, numbered from 0, and a threshold as a line across."""
    heights = [level or 0.0, *(column.value or 0.0 for column in columns)]
    heights += [column.null[1] for column in columns if column.null is not None]
    count = len(columns)
    numbers = range(0, count, -(-count // MOST_NAMES))
    plot = Plot(
        Axis(-0.5, count - 0.5, numbers, str, t("layers.charts.layer"), lines="none"),
        Axis(*within(0, top or 1.06 * max(heights) or 1.0), text=lambda value: quantity(value, 2)),
        440,
        224,
        "chart columns",
    )
    width = min(0.72 * (plot.end - plot.left) / count, WIDEST)
    marks = [column_mark(plot, position, column, width) for position, column in enumerate(columns)]
    if level is not None:
        marks.append(plot.level(level))
    return plot.figure(title, description, *marks)


def column_mark(plot: Plot, position: int, column: Column, width: float) -> Markup:
    """Return one column; a dash on the ground where there is nothing to say."""
    left, y = plot.across(position) - width / 2, plot.upwards
    if column.value is None:
        return line(left, y(0) - 1, left + width, y(0) - 1, "axis")
    colour = "neg" if column.marked else "pos"
    shade = colour if column.inner is not None else f"{colour} strong"
    parts = [plot.column(position, column.value, width, shade)]
    if column.null is not None:
        low, high = (y(value) for value in column.null)
        thick = max(low - high, THINNEST)
        parts.append(rectangle(left - 1, (low + high - thick) / 2, width + 2, thick, "null"))
    if column.inner:
        parts.append(plot.column(position, column.inner, width, "pos strong"))
    return joined(*parts)
