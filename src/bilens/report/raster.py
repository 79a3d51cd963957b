"""Vectors and inputs as small images: two colour maps and a PNG encoder.

Blue is positive and red is negative, as in the paper; the two stay apart for every common form of
colour blindness. Shades are interpolated in OKLab, where equal steps look equally large.
Sources: Ottosson, 2020, "A perceptual color space for image processing"; PNG specification, third
edition (W3C, 2025).
"""

from __future__ import annotations

import base64
import statistics
import struct
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np
from numpy.typing import ArrayLike, NDArray

from bilens.report.text import decimals, fixed

Colours = NDArray[np.float64]  # (…, 3)
Levels = NDArray[np.uint8]

STEPS: Final = 63  # shades on each side of white
GREYS: Final = 64
STRIP_RATIO = 6  # an input that is so many times wider than high is drawn as a strip
MAX_SIDE = 128  # pixels; larger images are thinned out
INDEXED = 3  # PNG colour type: each pixel is a position in the palette

TO_CONES = np.array(
    [
        [0.4122214708, 0.5363325363, 0.0514459929],
        [0.2119034982, 0.6806995451, 0.1073969566],
        [0.0883024619, 0.2817188376, 0.6299787005],
    ]
)
TO_LAB = np.array(
    [
        [0.2104542553, 0.7936177850, -0.0040720468],
        [1.9779984951, -2.4285922050, 0.4505937099],
        [0.0259040371, 0.7827717662, -0.8086757660],
    ]
)


def to_linear(channels: ArrayLike) -> Colours:
    """Return the light of sRGB channels, 0 to 1."""
    share = np.asarray(channels, dtype=np.float64) / 255
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4)


def to_oklab(colours: ArrayLike) -> Colours:
    """Return lightness, green–red and blue–yellow of sRGB colours."""
    lab: Colours = np.cbrt(to_linear(colours) @ TO_CONES.T) @ TO_LAB.T
    return lab


def shades(*stops: tuple[int, int, int]) -> Levels:
    """Return `STEPS` colours on the way from white through the stops, white left out."""
    lab = to_oklab([(255, 255, 255), *stops])
    positions = np.linspace(0, len(stops), STEPS + 1)[1:]
    channels = [np.interp(positions, range(len(lab)), channel) for channel in lab.T]
    cones = np.stack(channels, axis=1) @ np.linalg.inv(TO_LAB).T
    light = np.clip(cones**3 @ np.linalg.inv(TO_CONES).T, 0.0, 1.0)  # what a screen can show
    share = np.where(light <= 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)
    found: Levels = np.round(255 * share).astype(np.uint8)
    return found


POSITIVE: Final = shades((103, 169, 207), (5, 72, 140))
NEGATIVE: Final = shades((239, 138, 98), (158, 10, 38))
DIVERGING: Final = np.concatenate([NEGATIVE[::-1], np.full((1, 3), 255, np.uint8), POSITIVE])
NO_CELL: Final = np.array([[226, 230, 236]], np.uint8)
NO_VALUE: Final = np.array([[125, 133, 144]], np.uint8)
GREY: Final = np.repeat(np.round(np.linspace(0, 255, GREYS)).astype(np.uint8)[:, None], 3, axis=1)


def diverging_index(values: ArrayLike, scale: float) -> Levels:
    """Return where values lie in `DIVERGING`, with full colour at ±scale and beyond."""
    array = np.asarray(values, dtype=np.float64)
    share = np.clip(array / scale, -1.0, 1.0) if scale > 0 else np.zeros_like(array)
    return (STEPS + np.round(share * STEPS)).astype(np.uint8)


def grey_index(values: ArrayLike, low: float, high: float) -> Levels:
    """Return where values lie in `GREY`, black at `low` and white at `high`."""
    array = np.asarray(values, dtype=np.float64)
    share = (array - low) / (high - low) if high > low else np.zeros_like(array)
    return np.round(np.clip(share, 0.0, 1.0) * (GREYS - 1)).astype(np.uint8)


def hex_colour(value: float, scale: float) -> str:
    """Return the colour of a value for SVG: white at zero, blue above, red below."""
    return "#" + bytes(DIVERGING[int(diverging_index(value, scale))]).hex()


def encode_png(pixels: Levels, palette: Levels) -> bytes:
    """Return a PNG file of a matrix of palette indices."""
    # In a small image all colours weigh as much as the pixels: only those that occur are kept.
    used, positions = np.unique(pixels, return_inverse=True)
    positions = positions.reshape(pixels.shape).astype(np.uint8)
    rows = np.pad(positions, ((0, 0), (1, 0)))  # each row begins with 0: no filter
    height, width = pixels.shape
    chunks = (
        (b"IHDR", struct.pack(">IIBBBBB", width, height, 8, INDEXED, 0, 0, 0)),
        (b"PLTE", palette[used].tobytes()),
        (b"IDAT", zlib.compress(rows.tobytes(), 9)),
        (b"IEND", b""),
    )
    png = b"\x89PNG\r\n\x1a\n"
    for kind, content in chunks:
        sum_of_bytes = struct.pack(">I", zlib.crc32(kind + content))
        png += struct.pack(">I", len(content)) + kind + content + sum_of_bytes
    return png


def data_uri(pixels: Levels, palette: Levels) -> str:
    """Return an image as a URI that holds the PNG file itself."""
    return "data:image/png;base64," + base64.b64encode(encode_png(pixels, palette)).decode("ascii")


def colour_bar() -> str:
    return data_uri(np.arange(len(DIVERGING), dtype=np.uint8)[None], DIVERGING)


def cell_map(
    width: int,
    height: int,
    cells: Iterable[tuple[int, int]],
    values: Iterable[float | None],
    scale: float,
) -> str:
    """Return an image with the values of some cells, each column and line; others are grey."""
    pixels = np.full((height, width), len(DIVERGING), np.uint8)
    numbers = np.array([np.nan if value is None else value for value in values])
    columns, lines = np.array([*cells]).T
    unknown, colours = len(DIVERGING) + 1, diverging_index(np.nan_to_num(numbers), scale)
    pixels[lines, columns] = np.where(np.isnan(numbers), unknown, colours)
    return data_uri(pixels, np.concatenate([DIVERGING, NO_CELL, NO_VALUE]))


@dataclass(frozen=True)
class Painter:
    """Draws vectors as images of rows × columns, all on one colour scale."""

    rows: int
    columns: int
    scale: float  # full colour at ±scale and beyond

    @classmethod
    def scaled_to(cls, shape: Sequence[int], vectors: Iterable[Sequence[float]]) -> Painter:
        """Return the painter of vectors that are compared."""
        # The median, so that the few vectors with one extreme pixel do not make the others pale.
        largest = [max(abs(component) for component in vector) for vector in vectors]
        return cls(shape[0], shape[1], statistics.median(largest) if largest else 1.0)

    def pixels(self, values: Sequence[float]) -> Levels:
        """Return a vector as (rows, columns, 3): blue positive, red negative, white zero."""
        found: Levels = DIVERGING[diverging_index(self._thinned(values), self.scale)]
        return found

    @property
    def end(self) -> str:
        """The end of the scale as a text, without its sign."""
        return fixed(self.scale, decimals([self.scale], 2))

    @property
    def is_strip(self) -> bool:
        """Whether an input is a row of numbers and not an image."""
        return self.columns >= STRIP_RATIO * self.rows

    def vector(self, values: Sequence[float]) -> str:
        """Return a vector as a data URI: blue positive, red negative, white zero."""
        return data_uri(diverging_index(self._thinned(values), self.scale), DIVERGING)

    def image(self, values: Sequence[float]) -> str:
        """Return an input as a data URI: black its smallest value (or 0), white its largest."""
        low, high = min(0.0, *values), max(values)
        return data_uri(grey_index(self._thinned(values), low, high), GREY)

    def _thinned(self, values: Sequence[float]) -> NDArray[np.float64]:
        """Every n-th row and column where there are too many."""
        down, across = -(-self.rows // MAX_SIDE), -(-self.columns // MAX_SIDE)
        matrix = np.asarray(values, dtype=np.float64)[: self.rows * self.columns]
        matrix = matrix.reshape(self.rows, self.columns)
        return matrix[::down, :: 1 if self.is_strip else across]


def tiled(rows: Sequence[Sequence[Sequence[float]]], shape: tuple[int, int]) -> Levels:
    """Return vectors as one picture, (height, width, 3): grey lines stand between the images."""
    painter = Painter.scaled_to(shape, [vector for row in rows for vector in row])
    framed = ((1, 1), (1, 1), (0, 0))
    lines = [
        np.hstack([np.pad(painter.pixels(one), framed, constant_values=GREYS * 3) for one in row])
        for row in rows
    ]
    return np.vstack(lines)
