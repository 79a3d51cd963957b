"""The styles: every text can be read on every ground, in light, dark and print.

Damage seen to fail: `--quiet` of the light page made lighter.
"""

import re
from importlib.resources import files

import pytest

from bilens.report.raster import to_linear

TEMPLATES = files("bilens.report").joinpath("templates")
GROUNDS = ("bg", "surface", "sunken", "band")
READABLE = 4.5  # WCAG 2, level AA
PAIRS = [
    *((text, ground) for text in ("ink", "quiet") for ground in GROUNDS),
    *((text, ground) for text in ("accent", "pos", "neg", "warn") for ground in ("bg", "surface")),
    *((name, f"{name}-bg") for name in ("pass", "warn", "fail", "info")),
    *(("ink", f"{name}-bg") for name in ("info", "fail")),
]


def tokens(block: str) -> dict[str, str]:
    return dict(re.findall(r"--([a-z-]+):\s*(#[0-9a-f]{6})", block))


def themes() -> dict[str, dict[str, str]]:
    """The colours of each theme, as the cascade gives them."""
    base = TEMPLATES.joinpath("base.css").read_text("utf-8")
    light, dark = base.split("@media (prefers-color-scheme: dark)")
    printed = TEMPLATES.joinpath("print.css").read_text("utf-8")
    dark = dark[: dark.index("*, *::before")]
    return {
        "light": tokens(light),
        "dark": tokens(light) | tokens(dark),
        "print": tokens(light) | tokens(dark) | tokens(printed),
    }


def luminance(colour: str) -> float:
    red, green, blue = map(float, to_linear([*bytes.fromhex(colour[1:])]))
    return 0.2126 * red + 0.7152 * green + 0.0722 * blue


def contrast(first: str, second: str) -> float:
    low, high = sorted((luminance(first), luminance(second)))
    return (high + 0.05) / (low + 0.05)


@pytest.mark.parametrize("pair", PAIRS, ids="-on-".join)
@pytest.mark.parametrize("theme", themes())
def test_a_text_can_be_read(theme: str, pair: tuple[str, str]) -> None:
    colours = themes()[theme]
    assert contrast(colours[pair[0]], colours[pair[1]]) >= READABLE


def test_black_on_white_is_21_to_1() -> None:
    assert contrast("#000000", "#ffffff") == pytest.approx(21)


def test_every_theme_sets_the_same_colours() -> None:
    light, dark = themes()["light"], themes()["dark"]
    base = TEMPLATES.joinpath("base.css").read_text("utf-8")
    assert set(tokens(base.split("prefers-color-scheme: dark)")[1])) == set(light)
    assert set(tokens(TEMPLATES.joinpath("print.css").read_text("utf-8"))) == set(light)
    assert light.keys() == dark.keys()


@pytest.mark.parametrize("name", ["base.css", "parts.css", "print.css"])
def test_every_colour_that_is_used_is_defined(name: str) -> None:
    text = TEMPLATES.joinpath(name).read_text("utf-8")
    used = set(re.findall(r"var\(--([a-z-]+)\)", text)) - {"sans", "mono"}
    assert used <= set(themes()["light"])
