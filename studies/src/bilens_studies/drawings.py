"""Drawings of studies, an SVG file each: rows of small images with bars, and a grid of numbers."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.report import (
    GAP,
    MARGIN,
    START,
    STYLE,
    WIDTH,
    Figure,
    Painter,
    element,
    fitted,
    frame,
    hex_colour,
    joined,
    label,
    line,
    plate,
    rectangle,
    signed,
    text_width,
)

HEAD, CAPTION, NAMES, BARS, LARGEST = 78.0, 18.0, 88.0, 130.0, 96.0
SQUARE, DEEPEST = 84.0, 0.5  # width of a cell; its deepest shade, on which letters can be read
TITLE_LETTERS = 20.0


@dataclass(frozen=True)
class Tile:
    image: str  # a data URI
    caption: str = ""


@dataclass(frozen=True)
class TileRow:
    name: str
    tiles: Sequence[Tile]
    bars: Sequence[float] = ()  # on the scale of the largest of the row


def valued_tiles(images: Sequence[str], values: Sequence[float], digits: int = 2) -> list[Tile]:
    """Return images with a signed number below each."""
    return [Tile(image, signed(x, digits)) for image, x in zip(images, values, strict=True)]


def vector_image(vector: Sequence[float], shape: tuple[int, int]) -> str:
    """Return a vector as a data URI on its own scale: blue positive, red negative."""
    return Painter(shape[0], shape[1], max(map(abs, vector)) or 1.0).vector(vector)


def tile_plate(title: str, note: str, rows: Sequence[TileRow]) -> str:
    """Return an SVG file with a line of images for each row; all images have one size."""
    most = max(len(row.tiles) for row in rows)
    room = WIDTH - 2 * MARGIN - NAMES - (BARS if any(row.bars for row in rows) else 0.0)
    side = min(room / most - GAP, LARGEST)
    height = side + CAPTION + GAP
    marks = (row_marks(row, HEAD + n * height, side, most) for n, row in enumerate(rows))
    parts = [mark for row in marks for mark in row]
    return plate(title, note, note, HEAD + len(rows) * height + GAP, *parts)


def row_marks(row: TileRow, top: float, side: float, most: int) -> list[Markup]:
    name = fitted(row.name, 14, NAMES - GAP)
    look = {"class_": "name", "font_size": "14"}
    marks = [element("text", name, x=MARGIN, y=top + side / 2 + 5, **look)]
    left = MARGIN + NAMES
    for index, tile in enumerate(row.tiles):
        x = left + index * (side + GAP)
        marks.append(frame(tile.image, x, top, side, side, stretched=False))
        marks.append(label(x + side / 2, top + side + 14, tile.caption, "value", "middle"))
    if row.bars:
        marks.append(bars(row.bars, left + most * (side + GAP), top, side))
    return marks


def bars(values: Sequence[float], left: float, top: float, height: float) -> Markup:
    """Return a bar for each value, up from or down to the middle."""
    middle, width = top + height / 2, (BARS - GAP) / len(values)
    scale = height / 2 / (max(map(abs, values)) or 1.0)
    parts = [
        rectangle(left + place * width, middle, 0.8 * width, -scale * x, "blue" if x > 0 else "red")
        for place, x in enumerate(values)
    ]
    return element("g", *parts, line(left, middle, left + BARS - GAP, middle, "frame"))


def grid_figure(
    title: str,
    x_name: str,
    y_name: str,
    columns: Sequence[str],
    rows: Mapping[str, Sequence[float]],
    digits: int,
) -> str:
    """Return an SVG file with a number in each cell, on a shade that is deepest for the largest."""
    known = [value for values in rows.values() for value in values]
    low, span = min(known), (max(known) - min(known)) or 1.0
    left, top = START + 50, 100.0
    parts = [label(START, 34, title, "title"), label(START, 62, f"{y_name} ↓ {x_name} →", "key")]
    for column, name in enumerate(columns):
        parts.append(label(left + (column + 0.5) * SQUARE, top - 10, name, "tick", "middle"))
    for row, (name, values) in enumerate(rows.items()):
        y = top + row * SQUARE / 2
        parts.append(label(left - 10, y + SQUARE / 4 + 4, name, "tick", "end"))
        for column, value in enumerate(values):
            x, shade = left + column * SQUARE, DEEPEST * (value - low) / span
            size = {"width": SQUARE - 2, "height": SQUARE / 2 - 2}
            told = f"{value:.{digits}f}"
            parts += [
                element("rect", x=x, y=y, fill=hex_colour(shade, 1.0), **size),
                label(x + SQUARE / 2 - 1, y + SQUARE / 4 + 3, told, "key", "middle"),
            ]
    width = max(left + len(columns) * SQUARE, START + 1.1 * text_width(title, TITLE_LETTERS))
    height = top + len(rows) * SQUARE / 2 + START
    figure = Figure(title, f"{y_name} / {x_name}", width + START, height, joined(*parts))
    return figure.file(STYLE)
