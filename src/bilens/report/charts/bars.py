"""Named numbers as bars to both sides of zero."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bilens.report.numbers import signed_quantity
from bilens.report.svg import Axis, drawing, element, fitted, label, line, rectangle, text_width

WIDTH, ROW, TOP = 440.0, 24.0, 6.0
SIZE, NUMBER, NAME_WIDTH = 12.0, 76.0, 190.0  # of the text; room beside a bar; for a name at most


def bar_chart(
    title: str,
    description: str,
    rows: Sequence[tuple[str, float]],
    beside: Sequence[tuple[str, float]] = (),
) -> Markup:
    """Return one bar for each name, in the order given: blue above zero, red below.

    A name that is cut has its whole text as a tooltip.

    Args:
        title: of the drawing, for those who cannot see it.
        description: for the same.
        rows: name and value.
        beside: rows of the charts beside this one, so that all have one scale.
    """
    every = [*rows, *beside]
    short = [fitted(name, SIZE, NAME_WIDTH) for name, _ in rows]
    left = 14.0 + max(text_width(fitted(name, SIZE, NAME_WIDTH), SIZE) for name, _ in every)
    values = [value for _, value in every]
    low, high = min(0.0, *values), max(0.0, *values)
    if low == high:
        high = 1.0
    start = left + (NUMBER if low < 0 else 8.0)
    x = Axis(low, high, start, WIDTH - (NUMBER if high > 0 else 8.0))
    parts = [line(x(0), TOP, x(0), TOP + ROW * len(rows), "zero")]
    for place, ((name, value), text) in enumerate(zip(rows, short, strict=True)):
        top = TOP + ROW * place
        base = top + ROW / 2 + 4
        side, number = "pos" if value >= 0 else "neg", signed_quantity(value)
        shown = element(
            "text",
            element("title", name),
            text,
            x=left,
            y=base,
            class_="name",
            text_anchor="end",
        )
        end = "start" if value >= 0 else "end"
        parts += [
            shown,
            rectangle(x(0), top + 5, x(value) - x(0), ROW - 10, f"{side} strong"),
            label(x(value) + (6 if value >= 0 else -6), base, number, "", end),
        ]
    height = TOP + ROW * len(rows) + TOP
    return drawing(WIDTH, height, title, description, *parts, class_="chart scores")
