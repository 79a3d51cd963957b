"""One column for each layer of a model: R², size of the weights, effective rank beside chance."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.charts.spectrum import round_values
from bilens.report.numbers import quantity
from bilens.report.svg import Axis, drawing, label, line, rectangle

WIDTH, HEIGHT = 440.0, 210.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 6.0, 10.0, 26.0
MOST_NAMES = 8  # below the columns
ROOM = 1.06  # above the highest column
WIDEST = 34.0  # a column


@dataclass(frozen=True)
class Column:
    """One layer.

    Attributes:
        value: how high; None where there is nothing to say.
        inner: a part of it, drawn in full colour; None where there is none.
        band: from, to: the interval of chance.
        marked: whether it stands out.
    """

    value: float | None
    inner: float | None = None
    band: tuple[float, float] | None = None
    marked: bool = False


def layer_columns(
    t: Catalogue,
    title: str,
    text: str,
    columns: Sequence[Column],
    *,
    top: float | None = None,
    level: float | None = None,
) -> Markup:
    """Return a column for each layer, numbered from 0.

    Args:
        t: the catalogue.
        title: what is drawn.
        text: the same in words.
        columns: first layer to last.
        top: of the scale; None for the highest value.
        level: a line across, such as a threshold.
    """
    heights = [column.value or 0.0 for column in columns]
    heights += [column.band[1] for column in columns if column.band is not None]
    y = Axis(0, top or ROOM * max(*heights, level or 0.0, 1e-300), HEIGHT - BOTTOM, TOP)
    step = (WIDTH - LEFT - RIGHT) / len(columns)
    parts = [*scale(y)]
    for place, column in enumerate(columns):
        parts += drawn(column, LEFT + (place + 0.5) * step, min(0.72 * step, WIDEST), y)
    if level is not None:
        parts.append(line(LEFT, y(level), WIDTH - RIGHT, y(level), "edge"))
    every = -(-len(columns) // MOST_NAMES)
    parts += [
        label(LEFT + (place + 0.5) * step, HEIGHT - 8, str(place), "tick", "middle")
        for place in range(0, len(columns), every)
    ]
    parts.append(label(4, HEIGHT - 8, t("layers.charts.layer"), "tick"))
    return drawing(WIDTH, HEIGHT, title, text, *parts, class_="chart columns")


def scale(y: Axis) -> list[Markup]:
    """Return level lines with round numbers."""
    parts = []
    for value in round_values(y.low, y.high):
        parts.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), "grid"))
        parts.append(label(LEFT - 6, y(value) + 4, quantity(value, 2), "tick", "end"))
    return parts


def drawn(column: Column, middle: float, width: float, y: Axis) -> list[Markup]:
    """Return one column; a dash on the ground where there is nothing to say."""
    left, ground = middle - width / 2, y(0)
    if column.value is None:
        return [line(left, ground - 1, left + width, ground - 1, "axis")]
    parts = []
    if column.band is not None:
        low, high = (y(value) for value in column.band)
        thick = max(low - high, 3.0)
        centre = (low + high) / 2
        parts.append(rectangle(left - 1, centre - thick / 2, width + 2, thick, "chance"))
    colour = "neg" if column.marked else "pos"
    shade = colour if column.inner is not None else f"{colour} strong"
    bar = rectangle(left, y(column.value), width, ground - y(column.value), shade)
    parts.insert(0, bar)
    if column.inner is not None and column.inner > 0:
        parts.append(
            rectangle(left, y(column.inner), width, ground - y(column.inner), "pos strong")
        )
    return parts
