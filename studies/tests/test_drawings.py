"""Drawings: a grid of numbers holds its title, and a shade says how large each number is.

Broken once: with the shade of the row's largest number, and with the width of the cells alone.
"""

from xml.etree import ElementTree

from bilens.report.raster import hex_colour
from bilens_studies import drawings


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own text


def test_the_cells_of_a_grid_are_shaded_by_their_numbers() -> None:
    rows = {"0": [1.0, 3.0], "1": [2.0, 1.0]}
    svg = drawings.grid_figure("a title that is wider than the cells", "x", "y", "ab", rows, 1)
    drawn = [*parse(svg).iter()]
    shades = [node.get("fill") for node in drawn if node.tag.endswith("rect")][1:]
    assert shades == [hex_colour(drawings.DEEPEST * share, 1.0) for share in (0, 1, 0.5, 0)]
    texts = [node.text or "" for node in drawn if node.tag.endswith("text")]
    assert [text for text in texts if "." in text] == ["1.0", "3.0", "2.0", "1.0"]
    narrow = drawings.grid_figure("t", "x", "y", "ab", rows, 1)
    wide, least = (float(parse(x).get("width", 0)) for x in (svg, narrow))
    assert wide > least
    assert "NaN" not in drawings.grid_figure("all the same", "x", "y", "a", {"0": [2.0]}, 0)
