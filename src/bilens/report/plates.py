"""Plates: one drawing of the eigenvectors of every class, or of what every pixel adds to a score.

A plate stands alone (white background, images inside, no script, no reference), so that it can be
shown in a README.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.base import displayable
from bilens.records.class_readings import ClassReading, Explanations
from bilens.report.markup import Figure, element, joined, label
from bilens.report.raster import Painter, colour_bar
from bilens.report.sections.overview import class_painter, clean_names
from bilens.report.text import (
    decimals,
    fitted,
    grouped,
    load_catalogue,
    quantity,
    signed,
    signed_quantity,
)

PER_SIGN = 2  # eigenvectors of each sign
BLOCKS = 2  # columns of classes
MAX_CLASSES = 20  # more rows would make the drawing heavy; the report has them all
WIDTH, MARGIN, FOOT, GAP = 800.0, 24.0, 62.0, 8.0
STYLE = (
    ".note{font-size:13px;fill:#55606f}.name{font-weight:650}"
    ".value{font-size:12px;fill:#3a4553;font-variant-numeric:tabular-nums}"
    ".blue{fill:#0b4f94;font-weight:600}.red{fill:#9e0a26;font-weight:600}"
    "image{image-rendering:pixelated}.frame{fill:none;stroke:#c9d0d9}"
)


def eigenvector_plate(record: Audit, lang: str = "en") -> str:
    """Return the top positive and negative eigenvectors of each class, of many the first 20."""
    t, record = load_catalogue(lang), displayable(record)
    classes = () if record.classes is None else record.classes.readings
    painter, count = class_painter(record), len(classes)
    names = clean_names(record.model.output_names)[:MAX_CLASSES]
    layout, note = ClassGrid.fit_names(names), t("plate.note")
    if count > len(names):
        note += t("sentence.gap") + t("plate.part", shown=len(names), count=count)
    headings = (
        label(layout.image_left(block, sign, 0), HEAD - 10, t(f"plate.{key}"), f"note {colour}")
        for block in range(min(BLOCKS, len(names)))
        for sign, (key, colour) in enumerate((("for", "blue"), ("against", "red")))
    )
    rows = (
        layout.row(position, name, reading, painter)
        for position, (reading, name) in enumerate(zip(classes, names, strict=False))
    )
    ends = (f"≤ −{painter.end}", f"≥ +{painter.end}")
    base = layout.top(layout.rows)
    scale = scale_bar(ends, t("plate.scale"), base + 20)
    return plate(t("plate.title"), t("plate.note"), note, base + FOOT, *headings, *rows, scale)


HEAD, CAPTION, BETWEEN = 96.0, 20.0, 30.0  # above all; under an image; between the blocks


@dataclass(frozen=True)
class ClassGrid:
    """Where classes stand: it follows from how many there are and how long their names are."""

    rows: int  # classes in a block
    letters: float  # size of the names
    name_width: float
    side: float  # of an image, two of each sign in a block

    @classmethod
    def fit_names(cls, names: Sequence[str]) -> ClassGrid:
        letters, width = (26.0, 44.0) if all(len(name) <= 2 for name in names) else (14.0, 92.0)
        block = (WIDTH - 2 * MARGIN - BETWEEN) / BLOCKS
        side = (block - width - 2 * PER_SIGN * GAP) / (2 * PER_SIGN)
        return cls(-(-len(names) // BLOCKS), letters, width, side)

    def block(self, index: int) -> float:
        """Return where a block begins."""
        return MARGIN + index * (WIDTH - 2 * MARGIN + BETWEEN) / BLOCKS

    def image_left(self, block: int, sign: int, index: int) -> float:
        """Return where an image begins; sign 0 is positive, 1 negative."""
        across = sign * PER_SIGN + index
        return self.block(block) + self.name_width + across * (self.side + GAP) + sign * GAP

    def top(self, row: int) -> float:
        return HEAD + row * (self.side + CAPTION + GAP)

    def row(self, position: int, name: str, reading: ClassReading, painter: Painter) -> Markup:
        block, row = divmod(position, self.rows)
        top, side = self.top(row), self.side
        height = side * min(1.0, 3 * painter.rows / painter.columns) if painter.is_strip else side
        at = {"x": self.block(block), "y": top + side / 2 + self.letters / 3}
        short = fitted(name, self.letters, self.name_width - GAP)
        parts = [element("text", short, **at, class_="name", font_size=self.letters)]
        for sign, pairs in enumerate((reading.positive, reading.negative)):
            for index, pair in enumerate(pairs[:PER_SIGN]):
                left, value = self.image_left(block, sign, index), pair.eigenvalue
                image = painter.vector(pair.vector)
                text = f"λ = {signed(value, decimals([value], 2))}"
                parts += [
                    frame(image, left, top + (side - height) / 2, side, height, painter.is_strip),
                    label(left + side / 2, top + side + 14, text, "value", "middle"),
                ]
        return element("g", *parts)


def attribution_plate(record: Explanations, lang: str = "en") -> str:
    """Return each explained input beside what every pixel adds to its scores, on one scale."""
    t, record = load_catalogue(lang), displayable(record)
    items, names = record.explanations, clean_names(record.model.output_names)
    values = [abs(v) for item in items for part in item.attributions for v in part.values]
    rows, columns = record.model.input_shape
    painter = Painter(rows, columns, max(values, default=0.0) or 1.0)
    side = (WIDTH - 2 * MARGIN - 4 * GAP) / 3  # the input, the class, the contrast
    tall = side * (0.3 if painter.is_strip else min(painter.rows / painter.columns, 2.0))
    parts, top = [], 76.0
    for item in items:
        lines = (
            t("attribution.input", index=grouped(item.index)),
            t("attribution.says", name=names[item.predicted]),
        )
        tiles = [(painter.image(item.image), lines)]
        for part in item.attributions:
            rival = "" if part.rival is None else names[part.rival]
            score = t(f"attribution.{part.kind}", name=names[part.output], rival=rival)
            change = signed_quantity(part.score - part.score_at_baseline)
            tiles.append((painter.vector(part.values), (score, t("attribution.sum", value=change))))
        for position, (image, lines) in enumerate(tiles):
            left = MARGIN + position * (side + 2 * GAP)
            parts.append(frame(image, left, top, side, tall, stretched=True))
            parts += [
                label(left, top + tall + 16 * row, fitted(text, 12, side), "value")
                for row, text in enumerate(lines, start=1)
            ]
        top += tall + 44
    end, note = quantity(painter.scale, 2), t("attribution.note")
    scale = scale_bar((f"−{end}", f"+{end}"), t("attribution.scale"), top + 18)
    return plate(t("attribution.title"), note, note, top + FOOT, *parts, scale)


def plate(title: str, description: str, note: str, height: float, *parts: str) -> str:
    """Lay a drawing out as a file of SVG, with its title and note."""
    head = (label(MARGIN, 34, title, "title"), label(MARGIN, 56, note, "note"))
    return Figure(title, description, WIDTH, height, joined(*head, *parts)).file(STYLE)


def frame(image: str, x: float, y: float, width: float, height: float, stretched: bool) -> Markup:
    """Draw an image in a frame."""
    ratio = "none" if stretched else "xMidYMid"
    box = {"x": x, "y": y, "width": width, "height": height}
    return joined(
        element("image", href=image, preserveAspectRatio=ratio, **box),
        element("rect", class_="frame", **box),
    )


def scale_bar(ends: tuple[str, str], text: str, y: float) -> Markup:
    """Return the colour scale, with its ends named."""
    width, x = 200.0, MARGIN + 60
    return element(
        "g",
        label(x - 8, y + 11, ends[0], "value", "end"),
        frame(colour_bar(), x, y, width, 14, stretched=True),
        label(x + width / 2, y + 29, "0", "value", "middle"),
        label(x + width + 8, y + 11, ends[1], "value"),
        label(x + width + 84, y + 11, text, "note"),
    )
