"""Colour maps: a diverging one centred on white for eigenvectors, grey for images.

Blue is positive and red is negative, as in the paper; the two stay apart for every common form of
colour blindness. Shades are interpolated in OKLab, where equal steps look equally large.
Source of OKLab: Ottosson, 2020, "A perceptual color space for image processing".
"""

from __future__ import annotations

from typing import Final

Colour = tuple[int, int, int]  # sRGB, 0 to 255

POSITIVE: Final[tuple[Colour, ...]] = ((255, 255, 255), (103, 169, 207), (5, 72, 140))
NEGATIVE: Final[tuple[Colour, ...]] = ((255, 255, 255), (239, 138, 98), (158, 10, 38))
STEPS: Final = 63  # shades on each side of white
GREYS: Final = 64


def to_linear(channel: int) -> float:
    """Return the light of one sRGB channel, 0 to 1."""
    share = channel / 255
    return share / 12.92 if share <= 0.04045 else ((share + 0.055) / 1.055) ** 2.4


def from_linear(light: float) -> int:
    """Return the sRGB channel of an amount of light."""
    light = min(max(light, 0.0), 1.0)
    share = 12.92 * light if light <= 0.0031308 else 1.055 * light ** (1 / 2.4) - 0.055
    return round(255 * share)


def to_oklab(colour: Colour) -> tuple[float, float, float]:
    """Return lightness, green–red and blue–yellow."""
    r, g, b = (to_linear(channel) for channel in colour)
    long = (0.4122214708 * r + 0.5363325363 * g + 0.0514459929 * b) ** (1 / 3)
    medium = (0.2119034982 * r + 0.6806995451 * g + 0.1073969566 * b) ** (1 / 3)
    short = (0.0883024619 * r + 0.2817188376 * g + 0.6299787005 * b) ** (1 / 3)
    return (
        0.2104542553 * long + 0.7936177850 * medium - 0.0040720468 * short,
        1.9779984951 * long - 2.4285922050 * medium + 0.4505937099 * short,
        0.0259040371 * long + 0.7827717662 * medium - 0.8086757660 * short,
    )


def from_oklab(lightness: float, a: float, b: float) -> Colour:
    """Return the sRGB colour, clipped to what a screen can show."""
    long = (lightness + 0.3963377774 * a + 0.2158037573 * b) ** 3
    medium = (lightness - 0.1055613458 * a - 0.0638541728 * b) ** 3
    short = (lightness - 0.0894841775 * a - 1.2914855480 * b) ** 3
    return (
        from_linear(4.0767416621 * long - 3.3077115913 * medium + 0.2309699292 * short),
        from_linear(-1.2684380046 * long + 2.6097574011 * medium - 0.3413193965 * short),
        from_linear(-0.0041960863 * long - 0.7034186147 * medium + 1.7076147010 * short),
    )


def blend(stops: tuple[Colour, ...], share: float) -> Colour:
    """Return the colour at a share of the way along the stops."""
    place = min(max(share, 0.0), 1.0) * (len(stops) - 1)
    index = min(int(place), len(stops) - 2)
    if place == index:
        return stops[index]
    start, end, rest = to_oklab(stops[index]), to_oklab(stops[index + 1]), place - index
    lightness, a, b = (x + (y - x) * rest for x, y in zip(start, end, strict=True))
    return from_oklab(lightness, a, b)


DIVERGING: Final[tuple[Colour, ...]] = (
    *(blend(NEGATIVE, step / STEPS) for step in range(STEPS, 0, -1)),
    POSITIVE[0],
    *(blend(POSITIVE, step / STEPS) for step in range(1, STEPS + 1)),
)
GREY: Final[tuple[Colour, ...]] = tuple(
    (level, level, level) for level in (round(255 * i / (GREYS - 1)) for i in range(GREYS))
)


def diverging_index(value: float, scale: float) -> int:
    """Return where a value lies in `DIVERGING`, with full colour at ±scale and beyond."""
    share = min(max(value / scale, -1.0), 1.0) if scale > 0 else 0.0
    return STEPS + round(share * STEPS)


def grey_index(value: float, low: float, high: float) -> int:
    """Return where a value lies in `GREY`, black at `low` and white at `high`."""
    share = (value - low) / (high - low) if high > low else 0.0
    return round(min(max(share, 0.0), 1.0) * (GREYS - 1))
