"""PNG files and colour maps, against a decoder written here from the specification.

Damage seen to fail: rows without their filter byte; red and blue exchanged.
"""

import base64
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, strategies as st

from bilens.report.raster import (
    DIVERGING,
    GREY,
    MAX_SIDE,
    STEPS,
    Levels,
    Painter,
    data_uri,
    diverging_index,
    encode_png,
    grey_index,
    hex_colour,
    to_oklab,
)

Colour = tuple[int, int, int]

palettes = st.lists(st.tuples(*[st.integers(0, 255)] * 3), min_size=1, max_size=256)


def chunks(png: bytes) -> list[tuple[bytes, bytes]]:
    """Kind and content of each chunk; lengths and checksums are checked."""
    assert png[:8] == bytes([137, 80, 78, 71, 13, 10, 26, 10])
    found, place = [], 8
    while place < len(png):
        (length,) = struct.unpack(">I", png[place : place + 4])
        kind, content = png[place + 4 : place + 8], png[place + 8 : place + 8 + length]
        (checksum,) = struct.unpack(">I", png[place + 8 + length : place + 12 + length])
        assert checksum == zlib.crc32(kind + content)
        found.append((kind, content))
        place += 12 + length
    return found


def decode(png: bytes) -> tuple[int, int, list[Colour]]:
    """Width, height and pixels of an indexed PNG without filters."""
    found = chunks(png)
    assert [kind for kind, _ in found] == [b"IHDR", b"PLTE", b"IDAT", b"IEND"]
    parts = dict(found)
    width, height, *rest = struct.unpack(">IIBBBBB", parts[b"IHDR"])
    assert rest == [8, 3, 0, 0, 0], "8 bits, palette, no interlace"
    body = zlib.decompress(parts[b"IDAT"])
    assert len(body) == height * (width + 1)
    palette = parts[b"PLTE"]
    pixels = []
    for row in range(height):
        line = body[row * (width + 1) : (row + 1) * (width + 1)]
        assert line[0] == 0, "no filter"
        pixels += [tuple(palette[3 * index : 3 * index + 3]) for index in line[1:]]
    return width, height, pixels


@given(palettes, st.integers(1, 9), st.integers(1, 9), st.randoms(use_true_random=False))
def test_every_pixel_comes_back(palette: list[Colour], width: int, height: int, rng) -> None:
    pixels = [rng.randrange(len(palette)) for _ in range(width * height)]
    matrix = np.array(pixels, np.uint8).reshape(height, width)
    decoded = decode(encode_png(matrix, np.array(palette, np.uint8)))
    assert decoded == (width, height, [palette[pixel] for pixel in pixels])


def test_the_palette_holds_only_colours_that_occur() -> None:
    png = encode_png(np.array([[5, 9], [5, 5]], np.uint8), GREY)
    assert dict(chunks(png))[b"PLTE"] == GREY[[5, 9]].tobytes()


def test_the_uri_holds_the_file() -> None:
    pixels = np.array([[0, 1]], np.uint8)
    content = data_uri(pixels, GREY).removeprefix("data:image/png;base64,")
    assert base64.b64decode(content) == encode_png(pixels, GREY)


def test_zero_is_white_blue_is_positive_red_is_negative() -> None:
    assert [hex_colour(value, 1.0) for value in (-1.0, 0.0, 1.0)] == [
        "#9e0a26",
        "#ffffff",
        "#05488c",
    ]
    assert hex_colour(0.0, 0.0) == "#ffffff"


@pytest.mark.parametrize("side", [DIVERGING[:STEPS][::-1], DIVERGING[STEPS + 1 :]])
def test_stronger_is_always_darker(side: Levels) -> None:
    lightness = list(to_oklab(side)[:, 0])
    assert lightness == sorted(lightness, reverse=True)
    assert len(np.unique(side, axis=0)) == STEPS


def test_the_two_colours_stay_apart_for_those_who_confuse_red_and_green() -> None:
    """Blue against yellow is what they see: the b axis of OKLab."""
    for step in range(STEPS // 3, STEPS + 1):
        negative, positive = to_oklab(DIVERGING[STEPS - step]), to_oklab(DIVERGING[STEPS + step])
        assert positive[2] < -0.02
        assert negative[2] > 0.02


@pytest.mark.parametrize(("value", "place"), [(-9.0, 0), (9.0, 2 * STEPS), (0.5, STEPS + 32)])
def test_values_beyond_the_scale_have_the_full_colour(value: float, place: int) -> None:
    assert diverging_index(value, 1.0) == place


def test_a_scale_of_zero_is_white_and_black() -> None:
    assert diverging_index(0.0, 0.0) == STEPS
    assert grey_index(3.0, 3.0, 3.0) == 0


def test_an_image_is_black_where_it_is_lowest_and_white_where_highest() -> None:
    png = base64.b64decode(Painter(1, 3, 1.0).image([0.0, 2.0, 1.0]).split(",")[1])
    pixels = decode(png)[2]
    assert pixels[:2] == [(0, 0, 0), (255, 255, 255)]
    assert 120 < pixels[2][0] < 135


def test_large_images_are_thinned_out() -> None:
    side = 2 * MAX_SIDE + 10
    png = base64.b64decode(Painter(side, side, 1.0).vector([0.0] * side**2).split(",")[1])
    assert decode(png)[:2] == (89, 89)  # every third of 266


def test_vectors_that_are_compared_share_the_median_scale() -> None:
    assert Painter.scaled_to((1, 2), [[0.6, 0.1], [0.1, -0.8]]).scale == pytest.approx(0.7)
    assert Painter.scaled_to((1, 2), []).scale == 1.0


@pytest.mark.parametrize(("shape", "strip"), [((28, 28), False), ((1, 5), False), ((1, 6), True)])
def test_a_long_row_is_a_strip(shape: tuple[int, int], strip: bool) -> None:
    assert Painter(*shape, 1.0).is_strip is strip
