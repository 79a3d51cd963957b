"""The places at which a square speaks loudest for each class, on the grid of the inputs."""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.svg import drawing, element, line, rectangle

SIDE = 120.0  # of the longer side of an image
PAD = 2.0


def trigger_place(
    t: Catalogue, window: dict[str, Any], shape: tuple[int, int], name: str
) -> Markup:
    """Return the frame of an image with the square in it, one line for each pixel."""
    rows, columns = shape
    pixel = SIDE / max(shape)
    height, width = rows * pixel, columns * pixel
    values = {key: str(window[key]) for key in ("row", "column", "side")}
    grid = [
        *(line(PAD, PAD + y * pixel, PAD + width, PAD + y * pixel, "grid") for y in range(rows)),
        *(
            line(PAD + x * pixel, PAD, PAD + x * pixel, PAD + height, "grid")
            for x in range(columns)
        ),
    ]
    size = window["side"] * pixel
    left, top = PAD + window["column"] * pixel, PAD + window["row"] * pixel
    return drawing(
        width + 2 * PAD,
        height + 2 * PAD,
        t("triggers.picture_title", name=name),
        t("triggers.place", **values),
        *grid,
        element("rect", x=PAD, y=PAD, width=width, height=height, class_="axis", fill="none"),
        rectangle(left, top, size, size, "trigger"),
        class_="chart trigger-place",
    )
