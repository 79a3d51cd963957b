"""What the sections of a page are made of: paragraphs, tables, figures, cards; texts are escaped.

Each function returns markup. A cell or child is a text, markup of this file, or a `Figure`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.raster import Painter
from bilens.report.svg import Figure, element, joined

Content = str | Figure
ICONS: Final = {"pass": "✓", "warn": "!", "fail": "✗", "info": "i"}


@dataclass(frozen=True)
class Column:
    """A column of a table: what stands above it, and whether it holds numbers."""

    name: Content
    numeric: bool = True
    class_: str = ""

    @property
    def classes(self) -> str | None:
        """The classes of its cells."""
        return " ".join(filter(None, ("num" if self.numeric else "", self.class_))) or None


@dataclass(frozen=True)
class Row:
    """A row of a table."""

    cells: Sequence[Content]
    class_: str | None = None
    spans: bool = False  # the last cell runs to the end of the row


def section(name: str, heading: str, *blocks: Content, class_: str | None = None) -> Markup:
    """Return a section of the page, which the navigation leads to by its name."""
    title = element("h2", heading, id=f"{name}-heading")
    attributes = {"id": name, "aria_labelledby": f"{name}-heading", "class_": class_}
    return element("section", title, *blocks, **attributes)


def heading(text: str, level: int = 3) -> Markup:
    """Return a heading inside a section."""
    return element(f"h{level}", text)


def paragraph(*content: Content, class_: str | None = None) -> Markup:
    """Return a paragraph; nothing where it would be empty."""
    return element("p", *content, class_=class_) if any(content) else Markup()


def quiet(*content: Content) -> Markup:
    """Return a remark."""
    return paragraph(*content, class_="quiet")


def callout(t: Catalogue, term: str, text: str) -> Markup:
    """Return a remark in a box, with the word that it is about."""
    return paragraph(element("strong", term), t("sentence.gap"), text, class_="callout")


def badge(t: Catalogue, outcome: str, word: str = "") -> Markup:
    """Return an outcome as a mark and a word."""
    icon = element("span", ICONS[outcome], class_="icon", aria_hidden="true")
    return element("span", icon, word or t(f"outcome.{outcome}"), class_=f"badge {outcome}")


def link(anchor: str, text: str) -> Markup:
    """Return a link to a place of the page; the text alone where there is none."""
    return element("a", text, href=f"#{anchor}") if anchor else joined(text)


def items(texts: Iterable[Content], class_: str | None = None) -> Markup:
    """Return a list."""
    return element("ul", *(element("li", text) for text in texts), class_=class_)


def facts(pairs: Iterable[tuple[str, Content]], class_: str | None = None) -> Markup:
    """Return terms and what they are."""
    rows = (element("div", element("dt", term), element("dd", text)) for term, text in pairs)
    return element("dl", *rows, class_=class_)


def figure(drawing: Content, caption: str = "", class_: str | None = None) -> Markup:
    """Return a drawing with what stands above it."""
    above = (element("figcaption", caption),) if caption else ()
    return element("figure", *above, drawing, class_=class_)


def drawings(pairs: Iterable[tuple[str, Content]], class_: str = "drawings") -> Markup:
    """Return drawings side by side, each below its caption."""
    return element("div", *(figure(drawing, caption) for caption, drawing in pairs), class_=class_)


def vector_image(painter: Painter, values: Sequence[float], alt: str, side: int = 112) -> Markup:
    """Return a vector as an image; a strip where inputs are no images."""
    height = side if not painter.is_strip else {112: 36, 44: 20}[side]
    class_ = f"vector{' strip' if painter.is_strip else ''}"
    return element(
        "img", class_=class_, src=painter.vector(values), alt=alt, width=side, height=height
    )


def table(
    t: Catalogue,
    caption: Content,
    columns: Sequence[Column],
    rows: Iterable[Row | Sequence[Content]],
    *,
    named: Sequence[int] = (0,),
    class_: str | None = None,
    label: str = "",
    above: Content = "",
    below: Content = "",
) -> Markup:
    """Return a table that scrolls sideways where the page is narrow."""
    head = element("tr", *map(_head, columns))
    body = (_row(columns, row if isinstance(row, Row) else Row(row), named) for row in rows)
    title = element("caption", element("span", caption, class_="caption")) if caption else Markup()
    parts = (title, element("thead", *((above,) if above else ()), head), element("tbody", *body))
    whole = element("table", *parts, *((below,) if below else ()), class_=class_)
    name = t("page.scroll", name=label or Markup(caption).striptags())  # noqa: S704 - a text again
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=name)


def _head(column: Column) -> Markup:
    if not column.name:
        return element("td", "")
    return element("th", column.name, scope="col", class_=column.classes)


def _row(columns: Sequence[Column], row: Row, named: Sequence[int]) -> Markup:
    cells = []
    for position, cell in enumerate(row.cells):
        kind = columns[position].classes
        if position in named:
            cells.append(element("th", cell, scope="row", class_=kind))
        elif row.spans and position == len(row.cells) - 1:
            rest = len(columns) - position
            cells.append(element("td", cell, colspan=rest, class_=row.class_))
        else:
            cells.append(element("td", cell, class_=kind))
    return element("tr", *cells, class_=row.class_)


def card(
    summary: Sequence[Content],
    *content: Content,
    anchor: str | None = None,
    is_open: bool = True,
    level: int = 3,
) -> Markup:
    """Return a part that folds away below its heading, the first of `summary`."""
    title, *more = summary
    head = element(
        "summary",
        element(f"h{level}", title),
        *(element("span", text, class_="quiet") for text in more),
    )
    attributes = {"class_": "card", "id": anchor, "open": "" if is_open else None}
    return element("details", head, *content, **attributes)
