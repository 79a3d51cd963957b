"""The eigenvector plate: one drawing with the leading eigenvectors of every class.

It stands alone (white background, images inside, no script, no reference), so that it can be shown
in a README.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.colours import DIVERGING
from bilens.report.document import Document, displayable
from bilens.report.numbers import decimals, fixed, signed
from bilens.report.pictures import Painter, painter_of
from bilens.report.png import data_uri, encode_png
from bilens.report.sections.names import class_names
from bilens.report.svg import element, fitted, label

PER_SIGN = 2  # eigenvectors of each sign
BLOCKS = 2  # columns of classes
WIDTH, MARGIN, HEAD, FOOT = 800.0, 24.0, 96.0, 64.0
GAP, CAPTION, BETWEEN = 8.0, 20.0, 30.0  # between tiles, under a tile, between blocks
SHORT, LONG = (26.0, 44.0), (14.0, 92.0)  # size and room of names up to two letters, and of others
MAX_CLASSES = 20  # more rows would make the drawing heavy; the report has them all
STYLE = (
    'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,'
    '"Hiragino Sans","Noto Sans CJK JP",sans-serif;fill:#1c2430}'
    ".title{font-size:20px;font-weight:650}.note{font-size:13px;fill:#55606f}"
    ".name{font-weight:650}.value{font-size:12px;fill:#3a4553;"
    "font-variant-numeric:tabular-nums}.blue{fill:#0b4f94;font-weight:600}"
    ".red{fill:#9e0a26;font-weight:600}"
    "image{image-rendering:pixelated}"
    ".frame{fill:none;stroke:#c9d0d9}.rule{stroke:#e3e7ec}"
)


@dataclass(frozen=True)
class Layout:
    """Where things stand: it follows from how long the names are and how many there are."""

    count: int
    name_size: float
    name_width: float

    @property
    def rows(self) -> int:
        """Classes in a block."""
        return -(-self.count // BLOCKS)

    @property
    def tile(self) -> float:
        """The side of an image."""
        block = (WIDTH - 2 * MARGIN - BETWEEN) / BLOCKS
        return (block - self.name_width - 2 * PER_SIGN * GAP) / (2 * PER_SIGN)

    @property
    def height(self) -> float:
        """The height of the drawing."""
        return HEAD + self.rows * (self.tile + CAPTION + GAP) + FOOT

    def block(self, index: int) -> float:
        """Return where a block begins."""
        return MARGIN + index * (WIDTH - 2 * MARGIN + BETWEEN) / BLOCKS

    def left(self, block: int, sign: int, index: int) -> float:
        """Return where an image begins; sign 0 is positive, 1 negative."""
        across = sign * PER_SIGN + index
        return self.block(block) + self.name_width + across * (self.tile + GAP) + sign * GAP

    def top(self, row: int) -> float:
        """Return where a row begins."""
        return HEAD + row * (self.tile + CAPTION + GAP)


def layout_of(names: Sequence[str]) -> Layout:
    """Return the layout for classes of these names."""
    size, width = SHORT if all(len(name) <= 2 for name in names) else LONG
    return Layout(len(names), size, width)


def plate_svg(document: Document, lang: str = "en") -> str:
    """Return a drawing of the top positive and negative eigenvectors of each class.

    Of many classes the first 20 are drawn.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t, shown = load_catalogue(lang), displayable(document)
    painter, names = painter_of(document), class_names(shown)[:MAX_CLASSES]
    layout = layout_of(names)
    rows = [
        row_of(reading, name, painter, layout, place)
        for place, (reading, name) in enumerate(zip(shown["classes"], names, strict=False))
    ]
    svg = element(
        "svg",
        element("title", t("plate.title")),
        element("desc", t("plate.note")),
        element("style", Markup(STYLE)),  # noqa: S704 - a constant
        element("rect", width=WIDTH, height=layout.height, fill="#ffffff"),
        *head(t, layout, len(shown["classes"])),
        *rows,
        colour_bar(t, painter.scale, layout.height - FOOT + 20),
        xmlns="http://www.w3.org/2000/svg",
        viewBox=f"0 0 {WIDTH:g} {layout.height:g}",
        width=WIDTH,
        height=layout.height,
        role="img",
    )
    return f"{svg}\n"


def head(t: Catalogue, layout: Layout, count: int) -> list[Markup]:
    """Return title, note and the headings of the columns."""
    note = t("plate.note")
    if count > layout.count:
        note += t("sentence.gap") + t("plate.part", shown=layout.count, count=count)
    headings = [
        label(layout.left(block, sign, 0), HEAD - 10, t(key), f"note {class_}")
        for block in range(min(BLOCKS, layout.count))
        for sign, (key, class_) in enumerate((("plate.for", "blue"), ("plate.against", "red")))
    ]
    title = label(MARGIN, 34, t("plate.title"), "title")
    return [title, label(MARGIN, 56, note, "note"), *headings]


def row_of(
    reading: dict[str, Any], name: str, painter: Painter, layout: Layout, place: int
) -> Markup:
    """Return one class: its name and its images."""
    block, row = divmod(place, layout.rows)
    size, top = layout.name_size, layout.top(row)
    parts = [
        element(
            "text",
            fitted(name, size, layout.name_width - GAP),
            x=layout.block(block),
            y=top + layout.tile / 2 + size / 3,
            class_="name",
            font_size=size,
        )
    ]
    for sign, pairs in enumerate((reading["positive"], reading["negative"])):
        for index, pair in enumerate(pairs[:PER_SIGN]):
            parts += tile(pair, painter, layout.left(block, sign, index), top, layout.tile)
    return element("g", *parts)


def tile(pair: dict[str, Any], painter: Painter, x: float, y: float, side: float) -> list[Markup]:
    """Return one eigenvector with its eigenvalue."""
    height = side * min(1.0, 3 * painter.rows / painter.columns) if painter.is_strip else side
    top = y + (side - height) / 2
    return [
        element(
            "image",
            href=painter.eigenvector(pair["vector"]),
            x=x,
            y=top,
            width=side,
            height=height,
            preserveAspectRatio="none" if painter.is_strip else "xMidYMid",
        ),
        element("rect", x=x, y=top, width=side, height=height, class_="frame"),
        label(x + side / 2, y + side + 14, f"λ = {eigenvalue(pair)}", "value", "middle"),
    ]


def eigenvalue(pair: dict[str, Any]) -> str:
    """Return an eigenvalue with two decimals, or as many as it takes to see it."""
    return signed(pair["eigenvalue"], decimals([pair["eigenvalue"]], 2))


def colour_bar(t: Catalogue, scale: float, y: float) -> Markup:
    """Return the colour scale, with its ends named."""
    width, x, end = 200.0, MARGIN + 60, fixed(scale, decimals([scale], 2))
    uri = data_uri(encode_png(range(len(DIVERGING)), len(DIVERGING), DIVERGING))
    return element(
        "g",
        label(x - 8, y + 11, f"≤ −{end}", "value", "end"),
        element("image", href=uri, x=x, y=y, width=width, height=14, preserveAspectRatio="none"),
        element("rect", x=x, y=y, width=width, height=14, class_="frame"),
        label(x + width / 2, y + 29, "0", "value", "middle"),
        label(x + width + 8, y + 11, f"≥ +{end}", "value"),
        label(x + width + 84, y + 11, t("plate.scale"), "note"),
    )
