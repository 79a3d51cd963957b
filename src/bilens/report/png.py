"""A minimal PNG encoder: small images with a palette, one byte a pixel.

Source: PNG specification, third edition (W3C, 2025): signature, IHDR, PLTE, IDAT, IEND.
"""

from __future__ import annotations

import base64
import struct
import zlib
from collections.abc import Sequence

from bilens.report.colours import Colour

SIGNATURE = b"\x89PNG\r\n\x1a\n"
INDEXED = 3  # colour type: each pixel is a place in the palette
NO_FILTER = b"\x00"


def chunk(kind: bytes, content: bytes) -> bytes:
    """Return one chunk: length, kind, content, checksum of kind and content."""
    return (
        struct.pack(">I", len(content))
        + kind
        + content
        + struct.pack(">I", zlib.crc32(kind + content))
    )


def encode_png(pixels: Sequence[int], width: int, palette: Sequence[Colour]) -> bytes:
    """Return a PNG file, row by row from the top left.

    The palette is cut down to the colours that occur: in a small image it weighs as much as the
    pixels.

    Args:
        pixels: places in the palette; their number is a multiple of `width`.
        width: pixels in a row.
        palette: at most 256 colours.
    """
    used = sorted(set(pixels))
    place = {old: new for new, old in enumerate(used)}
    body = bytes(place[pixel] for pixel in pixels)
    rows = [NO_FILTER + body[start : start + width] for start in range(0, len(body), width)]
    header = struct.pack(">IIBBBBB", width, len(rows), 8, INDEXED, 0, 0, 0)
    colours = b"".join(bytes(palette[index]) for index in used)
    return (
        SIGNATURE
        + chunk(b"IHDR", header)
        + chunk(b"PLTE", colours)
        + chunk(b"IDAT", zlib.compress(b"".join(rows), 9))
        + chunk(b"IEND", b"")
    )


def data_uri(png: bytes) -> str:
    """Return a PNG file as a URI that holds the file itself."""
    return "data:image/png;base64," + base64.b64encode(png).decode("ascii")
