"""Rows of small images, what is said of each, and bars beside them; one file without a page."""

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.report.markup import element, label, line, rectangle
from bilens.report.plates import GAP, MARGIN, WIDTH, framed, plate
from bilens.report.raster import Painter
from bilens.report.text import fitted, signed

HEAD, CAPTION, NAMES, BARS, LARGEST = 78.0, 18.0, 88.0, 130.0, 96.0


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
    return Painter(*shape, max(map(abs, vector)) or 1.0).vector(vector)


def tile_plate(title: str, note: str, rows: Sequence[TileRow]) -> str:
    """Return an SVG file with a line of images for each row; all images have one size."""
    most = max(len(row.tiles) for row in rows)
    room = WIDTH - 2 * MARGIN - NAMES - BARS * any(row.bars for row in rows)
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
        marks.append(framed(tile.image, x, top, side, side, stretched=False))
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
