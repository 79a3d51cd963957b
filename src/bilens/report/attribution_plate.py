"""The attribution plate: each explained input beside what every pixel adds to its scores.

In the colours of the eigenvector plate, and like it an SVG that stands alone.
"""

from __future__ import annotations

from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.colours import DIVERGING
from bilens.report.document import Document, displayable
from bilens.report.numbers import quantity, signed_quantity, whole
from bilens.report.pictures import Painter
from bilens.report.plate import GAP, MARGIN, STYLE, WIDTH
from bilens.report.png import data_uri, encode_png
from bilens.report.sections.names import class_names
from bilens.report.svg import element, fitted, label

HEAD, FOOT, CAPTION = 76.0, 60.0, 44.0
COLUMNS = 3  # the input, the class, the contrast
TILE = (WIDTH - 2 * MARGIN - 2 * (COLUMNS - 1) * GAP) / COLUMNS


def attribution_plate(document: Document, lang: str = "en") -> str:
    """Return a drawing of the attributions of every explained input.

    All share one colour scale: full colour at the largest value of all.

    Args:
        document: what `explain_image` returned.
        lang: "en" or "ja".

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t, shown = load_catalogue(lang), displayable(document)
    items, names = shown["explanations"], class_names(shown)
    values = [abs(v) for item in items for part in item["attributions"] for v in part["values"]]
    rows, columns = shown["model"]["input_shape"]
    painter = Painter(rows, columns, max(values, default=0.0) or 1.0)
    side = height_of(painter)
    step = side + CAPTION
    height = HEAD + step * len(items) + FOOT
    svg = element(
        "svg",
        element("title", t("attribution.title")),
        element("desc", t("attribution.note")),
        element("style", Markup(STYLE)),  # noqa: S704 - a constant
        element("rect", width=WIDTH, height=height, fill="#ffffff"),
        label(MARGIN, 34, t("attribution.title"), "title"),
        label(MARGIN, 56, t("attribution.note"), "note"),
        *(
            part
            for place, item in enumerate(items)
            for part in row_of(t, item, names, painter, HEAD + place * step)
        ),
        colour_bar(t, painter.scale, height - FOOT + 20),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        width=WIDTH,
        height=height,
        role="img",
    )
    return f"{svg}\n"


def height_of(painter: Painter) -> float:
    """Return how high an image is drawn."""
    return TILE * (0.3 if painter.is_strip else min(painter.rows / painter.columns, 2.0))


def row_of(
    t: Catalogue, item: dict[str, Any], names: list[str], painter: Painter, top: float
) -> list[Markup]:
    """Return one input with its attributions."""
    lines = [
        t("attribution.input", index=whole(item["index"])),
        t("attribution.says", name=names[item["predicted"]]),
    ]
    parts = tile(painter, painter.image(item["image"]), MARGIN, top, lines)
    for place, part in enumerate(item["attributions"], start=1):
        key = f"attribution.{part['kind']}"
        rival = "" if part["rival"] is None else names[part["rival"]]
        change = part["score"] - part["score_at_baseline"]
        lines = [
            t(key, name=names[part["output"]], rival=rival),
            t("attribution.sum", value=signed_quantity(change)),
        ]
        left = MARGIN + place * (TILE + 2 * GAP)
        parts += tile(painter, painter.eigenvector(part["values"]), left, top, lines)
    return parts


def tile(painter: Painter, src: str, x: float, y: float, lines: list[str]) -> list[Markup]:
    """Return one image with lines of text under it."""
    height = height_of(painter)
    return [
        element("image", href=src, x=x, y=y, width=TILE, height=height, preserveAspectRatio="none"),
        element("rect", x=x, y=y, width=TILE, height=height, class_="frame"),
        *(
            label(x, y + height + 16 * place, fitted(text, 12, TILE), "value")
            for place, text in enumerate(lines, start=1)
        ),
    ]


def colour_bar(t: Catalogue, scale: float, y: float) -> Markup:
    """Return the colour scale, with its ends named."""
    width, x, end = 200.0, MARGIN + 60, quantity(scale, 2)
    uri = data_uri(encode_png(range(len(DIVERGING)), len(DIVERGING), DIVERGING))
    return element(
        "g",
        label(x - 8, y + 11, f"−{end}", "value", "end"),
        element("image", href=uri, x=x, y=y, width=width, height=14, preserveAspectRatio="none"),
        element("rect", x=x, y=y, width=width, height=14, class_="frame"),
        label(x + width / 2, y + 29, "0", "value", "middle"),
        label(x + width + 8, y + 11, f"+{end}", "value"),
        label(x + width + 84, y + 11, t("attribution.scale"), "note"),
    )
