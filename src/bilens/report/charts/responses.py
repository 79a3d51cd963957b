"""What columns do in their own units: a curve for a number, a field for two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from bilens.report.markup import Figure, element
from bilens.report.plot import Axis, Plot, padded, sign_class, within
from bilens.report.text import quantity, signed_quantity


def response_curve(
    title: str, name: str, points: Sequence[tuple[float, float]], every: Sequence[float]
) -> Figure:
    """Return the effect of one column, with room for the effects of `every` chart beside it."""
    x = Axis(*within(points[0][0], points[-1][0], 5), quantity, name, "short")
    plot = Plot(x, Axis(*padded(every, 6), signed_quantity), 440, 220, "chart wide response")
    return plot.figure(title, title, plot.line(points))


def pair_field(
    texts: tuple[str, str], names: tuple[str, str], field: Mapping[tuple[float, float], float]
) -> Figure:
    """Return the effects of two columns, by their values, as cells: blue raises, red lowers."""
    xs, ys = (sorted({point[side] for point in field}) for side in (0, 1))
    half = (xs[1] - xs[0]) / 2, (ys[1] - ys[0]) / 2
    ends = (
        within(xs[0] - half[0], xs[-1] + half[0], 5),
        within(ys[0] - half[1], ys[-1] + half[1], 5),
    )
    x_axis, y_axis = (
        Axis(*end, quantity, name, "short") for end, name in zip(ends, names, strict=True)
    )
    plot = Plot(x_axis, y_axis, 440, 300, "chart wide field")
    largest = max(map(abs, field.values())) or 1.0
    cells = [
        element(
            "rect",
            x=plot.across(x - half[0]),
            y=plot.upwards(y + half[1]),
            width=plot.across(x + half[0]) - plot.across(x - half[0]),
            height=plot.upwards(y - half[1]) - plot.upwards(y + half[1]),
            class_=f"{sign_class(value)} strong",
            fill_opacity=abs(value) / largest,
        )
        for (x, y), value in field.items()
    ]
    return plot.figure(*texts, *cells)
