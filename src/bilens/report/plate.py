"""The eigenvector plate: one drawing with the leading eigenvectors of every class.

It stands alone (white background, images inside, no script, no reference), so that it can be shown
in a README.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.colours import DIVERGING, STEPS
from bilens.report.document import Document, displayable
from bilens.report.numbers import fixed, signed
from bilens.report.pictures import Painter, painter_of
from bilens.report.png import data_uri, encode_png
from bilens.report.svg import element, label, shortened

PER_SIGN = 2  # eigenvectors of each sign
BLOCKS = 2  # columns of classes
TILE, GAP, CAPTION = 76.0, 8.0, 20.0
NAME_WIDTH = 44.0
WIDTH, MARGIN, HEAD, FOOT = 800.0, 24.0, 96.0, 64.0
MAX_CLASSES = 20  # more rows would make the drawing heavy; the report has them all
STYLE = (
    'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,'
    '"Hiragino Sans","Noto Sans CJK JP",sans-serif;fill:#1c2430}'
    ".title{font-size:20px;font-weight:650}.note{font-size:13px;fill:#55606f}"
    ".name{font-size:26px;font-weight:650}.value{font-size:12px;fill:#3a4553;"
    "font-variant-numeric:tabular-nums}.blue{fill:#0b4f94;font-weight:600}"
    ".red{fill:#9e0a26;font-weight:600}"
    "image{image-rendering:pixelated;image-rendering:crisp-edges;image-rendering:pixelated}"
    ".frame{fill:none;stroke:#c9d0d9}.rule{stroke:#e3e7ec}"
)


def plate_svg(document: Document, lang: str = "en") -> str:
    """Return a drawing of the top positive and negative eigenvectors of each class.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t, shown = load_catalogue(lang), displayable(document)
    painter = painter_of(document)
    readings = shown["classes"][:MAX_CLASSES]
    blocks = BLOCKS if len(readings) > 1 else 1
    rows = -(-len(readings) // blocks)
    height = HEAD + rows * (TILE + CAPTION + GAP) + FOOT
    cells = [
        row_of(reading, painter, index // rows, index % rows)
        for index, reading in enumerate(readings)
    ]
    svg = element(
        "svg",
        element("title", t("plate.title")),
        element("desc", t("plate.note")),
        element("style", Markup(STYLE)),  # noqa: S704 - a constant
        element("rect", width=WIDTH, height=height, fill="#ffffff"),
        *head(t, blocks),
        *cells,
        colour_bar(t, painter.scale, height - FOOT + 20),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH:g} {height:g}",
        width=WIDTH,
        height=height,
        role="img",
    )
    return f"{svg}\n"


def block_start(block: int) -> float:
    """Return where a column of classes begins."""
    return MARGIN + block * (WIDTH - 2 * MARGIN + 24) / BLOCKS


def tile_start(block: int, sign: int, index: int) -> float:
    """Return where a tile begins; sign 0 is positive, 1 negative."""
    across = sign * PER_SIGN + index
    return block_start(block) + NAME_WIDTH + across * (TILE + GAP) + sign * GAP


def head(t: Catalogue, blocks: int) -> list[Markup]:
    """Return title, note and the headings of the columns."""
    parts = [
        label(MARGIN, 34, t("plate.title"), "title"),
        label(MARGIN, 56, t("plate.note"), "note"),
    ]
    for block in range(blocks):
        for sign, (key, class_) in enumerate((("plate.for", "blue"), ("plate.against", "red"))):
            parts.append(label(tile_start(block, sign, 0), 86, t(key), f"note {class_}"))
    return parts


def row_of(reading: dict[str, Any], painter: Painter, block: int, row: int) -> Markup:
    """Return one class: its name and its tiles."""
    top = HEAD + row * (TILE + CAPTION + GAP)
    name = shortened(reading["name"], 12)
    size = 26 if len(name) <= 2 else max(9, 78 // len(name))
    parts = [
        element(
            "text",
            name,
            x=block_start(block),
            y=top + TILE / 2 + size / 3,
            class_="name",
            style=f"font-size:{size}px",
        )
    ]
    for sign, pairs in enumerate((reading["positive"], reading["negative"])):
        for index, pair in enumerate(pairs[:PER_SIGN]):
            parts.extend(tile(pair, painter, tile_start(block, sign, index), top))
    return element("g", *parts)


def tile(pair: dict[str, Any], painter: Painter, x: float, y: float) -> Sequence[Markup]:
    """Return one eigenvector with its eigenvalue."""
    ratio = "none" if painter.is_strip else "xMidYMid"
    return (
        element(
            "image",
            href=painter.eigenvector(pair["vector"]),
            x=x,
            y=y,
            width=TILE,
            height=TILE,
            preserveAspectRatio=ratio,
        ),
        element("rect", x=x, y=y, width=TILE, height=TILE, class_="frame"),
        label(x + TILE / 2, y + TILE + 14, f"λ = {signed(pair['eigenvalue'])}", "value", "middle"),
    )


def colour_bar(t: Catalogue, scale: float, y: float) -> Markup:
    """Return the colour scale, with its ends named."""
    width, x = 200.0, MARGIN + 60
    uri = data_uri(encode_png(range(2 * STEPS + 1), 2 * STEPS + 1, DIVERGING))
    return element(
        "g",
        label(x - 8, y + 11, f"≤ {fixed(-scale)}", "value", "end"),
        element("image", href=uri, x=x, y=y, width=width, height=14, preserveAspectRatio="none"),
        element("rect", x=x, y=y, width=width, height=14, class_="frame"),
        label(x + width / 2, y + 29, "0", "value", "middle"),
        label(x + width + 8, y + 11, f"≥ +{fixed(scale)}", "value"),
        label(x + width + 84, y + 11, t("plate.scale"), "note"),
    )
