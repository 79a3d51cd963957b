"""Charts of spectra, ranks, layers and triggers, and of where a model changed."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.records.tensor_changes import TensorChange
from bilens.report.markup import Figure, circle, element, joined, label, line, rectangle
from bilens.report.plot import LARGE, Axis, Plot, Range, Scale, Texts, padded, within
from bilens.report.raster import Painter
from bilens.report.text import Catalogue, fixed, grouped, signed_quantity, tick_text

END = 20  # eigenvalues drawn at each end of a spectrum
GAP = 4  # slots left free where the middle is not drawn
MOST_NAMES = 8  # below the columns of layers
WIDEST = 34.0  # column of a layer
THINNEST = 3.0  # an interval narrower than this would not be seen
PICTURE = 120.0  # longer side of an image
WIDTH, NAMES, HIGH, HEAD, CELL = 760.0, 132.0, 24.0, 22.0, 40.0  # of a map of changes
NUMBERED = 20.0  # a cell so wide has room for a number
DECADES = 6  # of ‖ΔW‖ / ‖W‖, from pale to full colour


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
    ends = padded([*eigenvalues, low, high], most=10)
    values = Axis(ends, text=lambda value: signed_quantity(value, 1), lines="short")
    plot = Plot(Axis(Range(-1, last + 1)), values, 440, 264, "chart spectrum", letters=14, right=8)
    stems = []
    for slot, value in drawn:
        beyond = value > high or value < low
        stems.append(plot.stem(slot, value, "strong" if beyond else "", 4.0 if beyond else 2.8))
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
        *stems,
        label(plot.end - 4, plot.upwards(high) + 14, upper, "note", "end"),
        label(plot.start + 4, plot.upwards(low) - 5, lower, "note"),
        slot_names(t, plot, len(eigenvalues), len(drawn)),
        behind=plot.band(low, high),
    )


def spectrum_slots(values: Sequence[float]) -> list[tuple[int, float]]:
    """Return slot and value of each eigenvalue that is drawn: all, or both ends."""
    if len(values) <= 2 * END + GAP:
        return list(enumerate(values))
    return [*enumerate(values[:END]), *enumerate(values[-END:], start=END + GAP)]


def slot_names(t: Catalogue, plot: Plot, count: int, drawn: int) -> Markup:
    """Return which eigenvalues stand in the slots."""
    base, x = plot.height - 10, plot.across
    if count == drawn:
        middle = (plot.start + plot.end) / 2
        return label(middle, base, t("spectrum.all", count=count), "tick", "middle")
    gap = (x(END - 1) + x(END + GAP)) / 2
    return joined(
        label(x(-0.5), base, t("spectrum.largest", count=END), "tick"),
        label(gap, base, t("spectrum.hidden", count=count - drawn), "tick", "middle"),
        label(plot.end, base, t("spectrum.smallest", count=END), "tick", "end"),
    )


def eigenvalue_chart(texts: Texts, axes: Texts, values: Sequence[float]) -> Figure:
    """Return a stem for each of the leading eigenvalues, in their order."""
    span = within(0, len(values) + 1)
    orders = [tick for tick in span.ticks if tick.is_integer()]
    x, y = Axis(span._replace(ticks=orders), name=axes[0]), Axis(padded(values), name=axes[1])
    plot = Plot(x, y, 380, 220)
    stems = (plot.stem(order, value, "strong") for order, value in enumerate(values, start=1))
    return plot.figure(*texts, *stems)


def rank_strip(t: Catalogue, rank: float, null: tuple[float, float], largest: float) -> Figure:
    """Return a dot for an effective rank and a bar for the null interval, on a scale from 0."""
    width, middle = 180.0, 11.0
    x = Scale(0, largest or 1.0, 4, width - 8)
    start, end = map(x, null)
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
class LayerColumn:
    value: float | None  # how high; None where there is nothing to say
    inner: float | None = None  # a part of it, in full colour
    null: tuple[float, float] | None = None  # what chance would give
    marked: bool = False  # whether it stands out
    assumed: bool = False  # whether it rests on an input that nobody gave


def layer_columns(
    t: Catalogue,
    texts: Texts,
    columns: Sequence[LayerColumn],
    *,
    top: float | None = None,
    level: float | None = None,
) -> Figure:
    """Return a column for each layer, numbered from 0, and a threshold as a line across."""
    heights = [level or 0.0, *(column.value or 0.0 for column in columns)]
    heights += [column.null[1] for column in columns if column.null is not None]
    count = len(columns)
    numbers = range(0, count, -(-count // MOST_NAMES))
    places = Range(-0.5, count - 0.5, numbers)
    across = Axis(places, str, t("layers.charts.layer"), lines="none")
    upwards = Axis(within(0, top or 1.06 * max(heights) or 1.0), text=tick_text)
    plot = Plot(across, upwards, 440, 224, "chart wide columns", LARGE)
    width = min(0.72 * (plot.end - plot.start) / count, WIDEST)
    marks = [column_mark(plot, position, column, width) for position, column in enumerate(columns)]
    if level is not None:
        marks.append(plot.level(level))
    return plot.figure(*texts, *marks)


def column_mark(plot: Plot, position: int, column: LayerColumn, width: float) -> Markup:
    """Return one column; a dash on the ground where there is nothing to say."""
    left, y = plot.across(position) - width / 2, plot.upwards

    def upto(value: float, class_: str) -> Markup:
        return rectangle(left, y(value), width, y(0) - y(value), class_)

    if column.value is None:
        return line(left, y(0) - 1, left + width, y(0) - 1, "axis")
    colour = "neg" if column.marked else "assumed" if column.assumed else "pos"
    parts = [upto(column.value, colour if column.inner is not None else f"{colour} strong")]
    if column.null is not None:
        low, high = map(y, column.null)
        thick = max(low - high, THINNEST)
        parts.append(rectangle(left - 1, (low + high - thick) / 2, width + 2, thick, "null"))
    if column.inner:
        parts.append(upto(column.inner, f"{'assumed' if column.assumed else 'pos'} strong"))
    return joined(*parts)


def trigger_picture(
    pattern: Sequence[float],
    shape: tuple[int, int],
    box: tuple[int, int, int, int] | None,
    texts: Texts,
) -> Figure:
    """Draw what a trigger adds to an image, on its own scale, its place in a frame."""
    (rows, columns), pad = shape, 2.0
    pixel = PICTURE / max(shape)
    room = {"x": pad, "y": pad, "width": columns * pixel, "height": rows * pixel}
    painter = Painter(rows, columns, max(map(abs, pattern)))
    href = painter.vector(pattern)
    content = [
        element("image", **room, href=href, preserveAspectRatio="none", class_="vector"),
        element("rect", **room, class_="axis", fill="none"),
    ]
    if box is not None:
        row, column, high, wide = (pixel * each for each in box)
        place = {"x": pad + column, "y": pad + row, "width": wide, "height": high}
        content.append(element("rect", **place, class_="trigger"))
    title, description = texts
    wide, high = columns * pixel + 2 * pad, rows * pixel + 2 * pad
    return Figure(title, description, wide, high, joined(*content), "chart trigger-picture")


def change_map(t: Catalogue, changed: Sequence[TensorChange]) -> Figure:
    """Return a cell for each kind and layer: coloured by its largest change, with its rank."""
    kinds = [*dict.fromkeys(one.kind for one in changed)]
    last = max((one.layer for one in changed if one.layer is not None), default=-1)
    layers = [*([None] if any(one.layer is None for one in changed) else []), *range(last + 1)]
    wide = min((WIDTH - NAMES) / len(layers), CELL)
    ranked = sorted(changed, key=lambda one: math.inf if one.change is None else one.change)
    cells = {(one.kind, one.layer): one for one in ranked}
    step, parts = math.ceil(NUMBERED / wide), []
    for place, layer in [*enumerate(layers)][::step]:
        name = "–" if layer is None else str(layer)
        parts.append(label(NAMES + (place + 0.5) * wide, HEAD - 8, name, "tick", "middle"))
    for row, kind in enumerate(kinds):
        top, base = HEAD + row * HIGH, HEAD + (row + 0.68) * HIGH
        parts.append(label(NAMES - 8, base, t(f"difference.kind.{kind}"), "tick", "end"))
        for place, layer in enumerate(layers):
            left, found = NAMES + place * wide, cells.get((kind, layer))
            box = {"x": left + 1, "y": top + 1, "width": wide - 2, "height": HIGH - 2}
            parts.append(element("rect", **box, class_="track"))
            if found is not None:
                size = max(found.change or 1.0, 10.0**-DECADES)
                shade = min(1 + 0.85 * math.log10(size) / DECADES, 1.0)
                colour = "neg strong" if found.state == "not_finite" else "pos strong"
                parts.append(element("rect", **box, class_=colour, fill_opacity=shade))
                number = str(found.rank or "") if wide >= NUMBERED else ""
                parts.append(label(left + wide / 2, base, number, "number", "middle"))
    width, height = NAMES + len(layers) * wide + 4, HEAD + len(kinds) * HIGH + 4
    title, text = t("difference.map"), t("difference.map_text", changed=grouped(len(changed)))
    return Figure(title, text, width, height, joined(*parts), "chart change-map")
