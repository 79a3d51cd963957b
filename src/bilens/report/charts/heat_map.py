"""A symmetric matrix of interactions between a few input latents, as coloured squares."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bilens.report.colours import DIVERGING, diverging_index
from bilens.report.numbers import signed_quantity
from bilens.report.svg import drawing, element, fitted, label, text_width

CELL, HEAD, GAP = 30.0, 22.0, 8.0
SIZE, NAME_WIDTH = 12.0, 150.0
CHARACTER = 0.62 * SIZE


def heat_map(
    title: str,
    description: str,
    matrix: Sequence[Sequence[float]],
    numbers: Sequence[int],
    names: Sequence[str],
) -> Markup:
    """Return the matrix; each square says its value when it is pointed at.

    Args:
        title: of the drawing.
        description: what it shows, for those who cannot see it.
        matrix: symmetric.
        numbers: of the input latents, above the columns.
        names: of the input latents, beside the rows.
    """
    short = [fitted(name, SIZE, NAME_WIDTH) for name in names]
    left = GAP + max(text_width(name, SIZE) for name in short)
    cell = max(CELL, CHARACTER * max(len(str(number)) for number in numbers) + 4)
    largest = max(abs(value) for row in matrix for value in row)
    parts = []
    for row, values in enumerate(matrix):
        top = HEAD + row * CELL
        parts.append(label(left - GAP, top + CELL / 2 + 4, short[row], "", "end"))
        for column, value in enumerate(values):
            parts.append(
                element(
                    "rect",
                    element("title", f"{names[row]} × {names[column]}: {signed_quantity(value)}"),
                    x=left + column * cell,
                    y=top,
                    width=cell - 1,
                    height=CELL - 1,
                    fill=colour(value, largest),
                    class_="cell",
                )
            )
    for column, number in enumerate(numbers):
        parts.append(label(left + (column + 0.5) * cell, HEAD - 7, str(number), "tick", "middle"))
    width, height = left + cell * len(numbers) + 2, HEAD + CELL * len(matrix) + 2
    return drawing(width, height, title, description, *parts, class_="chart heat-map")


def colour(value: float, largest: float) -> str:
    """Return the colour of a value: white at zero, blue above, red below."""
    red, green, blue = DIVERGING[diverging_index(value, largest)]
    return f"#{red:02x}{green:02x}{blue:02x}"
