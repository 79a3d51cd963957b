"""Circuits of a language model: correlations, latents on a plane, interactions as squares."""

import math
from collections.abc import Mapping, Sequence

from markupsafe import Markup

from bilens.report.markup import Figure, circle, element, joined, label, line
from bilens.report.plot import LETTERS, Axis, Plot, Points, Range, Texts, padded, sign_class, within
from bilens.report.raster import hex_colour
from bilens.report.text import fitted, grouped, signed_quantity, text_width

KINDS = ("all", "active", "null", "null_active")  # of correlations
LOWER, MEDIAN, UPPER = 1, 2, 3  # positions among the quantiles
SIDEWAYS = {"all": -0.009, "active": 0.009}  # so that two whiskers do not hide each other
NAME_WIDTH = 130.0  # of a point
CELL, HEAD = 30.0, 22.0  # a square of the matrix; the numbers above it
Box = tuple[float, float, float, float]  # left, top, right, bottom


def series(kind: str) -> str:
    """Return the class that colours a kind of correlation."""
    return f"kind-{kind.replace('_', '-')}"


def by_rank(
    texts: Texts,
    axes: Texts,
    ranks: Sequence[int],
    quantiles: Mapping[str, Sequence[Sequence[float]]],
) -> Figure:
    """Return the median correlation against the number of eigenvectors, with the middle half."""
    last = math.log2(ranks[-1]) or 1.0
    lows = [five[LOWER] for kind in KINDS for five in quantiles[kind] if five]
    low = math.floor(4 * min(0.0, *lows, 0.0)) / 4
    span = Range(2 ** (-0.15 * last), 2 ** (1.1 * last), ranks)
    numbers = Axis(span, grouped, axes[0], "none", math.log2)
    plot = Plot(numbers, Axis(within(low - 0.02, 1.02), name=axes[1]), 460, 300)
    x, y, marks = plot.across, plot.upwards, []
    for kind in reversed(KINDS):
        shift, colour = 2 ** (SIDEWAYS.get(kind, 0.0) * last), series(kind)
        known = [(k * shift, five) for k, five in zip(ranks, quantiles[kind], strict=True) if five]
        medians = [(position, five[MEDIAN]) for position, five in known]
        if kind in SIDEWAYS:
            marks += [
                line(x(k), y(five[LOWER]), x(k), y(five[UPPER]), f"kind {colour}")
                for k, five in known
            ]
        marks += [plot.line(medians, f"kind {colour}"), plot.dots(medians, f"dot {colour}")]
    return plot.figure(*texts, *marks)


def histogram(
    texts: Texts, axes: Texts, edges: Sequence[float], counts: Mapping[str, Sequence[int]]
) -> Figure:
    """Return how many output latents have which correlation, one outline for each kind."""
    most = max(1, *(count for kind in KINDS for count in counts[kind]))
    upwards = Axis(within(0, 1.05 * most), name=axes[1])
    plot = Plot(Axis(within(-1.05, 1.05), name=axes[0]), upwards, 460, 300)
    marks = []
    for kind in reversed(KINDS):
        outline = [(edges[0], 0.0)]
        for position, count in enumerate(counts[kind]):
            outline += [(edges[position], float(count)), (edges[position + 1], float(count))]
        marks.append(plot.line([*outline, (edges[-1], 0.0)], f"kind {series(kind)}"))
    return plot.figure(*texts, *marks)


def named_points(texts: Texts, axes: Texts, points: Points, names: Sequence[str]) -> Figure:
    """Return points, the most important first, with their names where these cover no other one."""
    sides = zip(axes, zip(*points, strict=True), strict=True)
    across, upwards = (Axis(padded(values), name=name) for name, values in sides)
    plot = Plot(across, upwards, 380, 300)
    centres = [(plot.across(x), plot.upwards(y)) for x, y in points]
    taken: list[Box] = [(x - 4, y - 4, x + 4, y + 4) for x, y in centres]
    marks = []
    for name, (value, _), (x, y) in zip(names, points, centres, strict=True):
        marks.append(circle(x, y, 4.0, f"{sign_class(value)} strong", name))
        marks.append(placed_name(fitted(name, LETTERS, NAME_WIDTH), x, y, plot, taken))
    return plot.figure(*texts, *marks)


def placed_name(text: str, x: float, y: float, plot: Plot, taken: list[Box]) -> Markup:
    """Return a name beside its point where nothing else is, and mark the position as taken."""
    width = text_width(text, LETTERS)
    for left, base, anchor, at in (
        (x + 7, y + 4, "start", x + 7),
        (x - 7 - width, y + 4, "end", x - 7),
        (x - width / 2, y - 8, "middle", x),
        (x - width / 2, y + 17, "middle", x),
    ):
        box = (left, base - LETTERS + 1, left + width, base + 3)
        across = plot.start + 4 <= box[0] and box[2] <= plot.width - plot.right / 2
        inside = across and box[1] >= plot.top / 2 and box[3] <= plot.base
        if inside and not any(overlap(box, other) for other in taken):
            taken.append(box)
            return label(at, base, text, "point-name", anchor)
    return Markup()


def overlap(first: Box, second: Box) -> bool:
    left, top, right, bottom = first
    return left < second[2] and second[0] < right and top < second[3] and second[1] < bottom


def agreement_points(
    texts: Texts,
    axes: Texts,
    found: Sequence[float],
    truth: Sequence[float],
    active: Sequence[bool],
) -> Figure:
    """Return the truth against an approximation, with the line on which both are equal."""
    plot = Plot(Axis(padded(found), name=axes[0]), Axis(padded(truth), name=axes[1]), 380, 300)
    across, upwards = plot.x.span, plot.y.span
    ends = (max(across.low, upwards.low), min(across.high, upwards.high))
    points = sorted(zip(active, found, truth, strict=True))  # active ones on top
    specks = (
        plot.dots([(x, y)], "speck active" if on else "speck", 2.5 if on else 1.8)
        for on, x, y in points
    )
    return plot.figure(*texts, plot.line([(v, v) for v in ends], "edge"), *specks)


def heat_map(
    texts: Texts, matrix: Sequence[Sequence[float]], numbers: Sequence[int], names: Sequence[str]
) -> Figure:
    """Return a symmetric matrix between latents; each square says its value when pointed at."""
    short = [fitted(name, LETTERS, 150) for name in names]
    left = 8 + max(text_width(name, LETTERS) for name in short)
    width = max(CELL, 4 + max(text_width(str(number), LETTERS) for number in numbers))
    largest = max(abs(value) for row in matrix for value in row)
    parts = [
        label(left + (column + 0.5) * width, HEAD - 7, str(number), "tick", "middle")
        for column, number in enumerate(numbers)
    ]
    for row, values in enumerate(matrix):
        top = HEAD + row * CELL
        parts.append(label(left - 8, top + CELL / 2 + 4, short[row], "", "end"))
        for column, value in enumerate(values):
            tooltip = f"{names[row]} × {names[column]}: {signed_quantity(value)}"
            box = {"x": left + column * width, "y": top, "width": width - 1, "height": CELL - 1}
            look = {"fill": hex_colour(value, largest), "class_": "cell"}
            parts.append(element("rect", element("title", tooltip), **box, **look))
    title, description = texts
    wide, high = left + width * len(numbers) + 2, HEAD + CELL * len(matrix) + 2
    return Figure(title, description, wide, high, joined(*parts), "chart heat-map")
