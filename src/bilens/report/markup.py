"""Markup: elements, drawings, and what sections are made of; what is no markup is escaped.

A child or a cell is a text, markup of this file, or a `Figure`.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from markupsafe import Markup, escape

from bilens.report.raster import Painter
from bilens.report.text import Catalogue

ICONS: Final = {
    "pass": "✓",
    "warn": "!",
    "fail": "✗",
    "info": "i",
    "unknown": "?",
    "listed": "≡",  # what it is, not what it does
}
FONTS = (
    'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,'
    '"Hiragino Sans","Noto Sans CJK JP",sans-serif;fill:#1c2430}'
    ".title{font-size:20px;font-weight:650}"
)


class SupportsHtml(Protocol):
    def __html__(self) -> str: ...


def element(tag: str, *children: str | SupportsHtml, **attributes: str | float | None) -> Markup:
    """Return one element; `stroke_width` is stroke-width, `class_` is class, None is left out."""
    parts = []
    for name, value in attributes.items():
        if value is not None:
            text = value if isinstance(value, str) else f"{round(value, 2):g}"
            parts.append(f' {name.rstrip("_").replace("_", "-")}="{escape(text)}"')
    opening = f"<{tag}{''.join(parts)}"
    if not children:
        return Markup(opening + "/>")  # noqa: S704 - the parts are escaped above
    content = "".join(escape(child) for child in children)
    return Markup(f"{opening}>{content}</{tag}>")  # noqa: S704 - escaped as well


def joined(*parts: str) -> Markup:
    """Join pieces of markup."""
    return Markup().join(parts)


@dataclass(frozen=True)
class Figure:
    """A drawing with a name and a description for those who cannot see it."""

    title: str
    description: str
    width: float
    height: float
    content: Markup
    class_: str = "chart"

    def __html__(self) -> str:
        """Return it as part of a page, whose style sheet colours its classes."""
        return self._svg(self.content, class_=self.class_)

    def __str__(self) -> str:
        return self.__html__()

    def file(self, style: str) -> str:
        """Return it as a file that stands alone: white background, no script, no reference."""
        svg = self._svg(
            element("style", Markup(FONTS + style)),  # noqa: S704 - constants
            element("rect", width=self.width, height=self.height, fill="#ffffff"),
            self.content,
            xmlns="http://www.w3.org/2000/svg",
        )
        return f"{svg}\n"

    def _svg(self, *children: str, **attributes: str) -> Markup:
        return element(
            "svg",
            element("title", self.title),
            element("desc", self.description),
            *children,
            **attributes,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            width=self.width,
            height=self.height,
            role="img",
        )


Content = str | Figure


def label(x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> Markup:
    """Return a text at a point of its base line."""
    anchor_or_none = None if anchor == "start" else anchor
    return element("text", text, x=x, y=y, class_=class_ or None, text_anchor=anchor_or_none)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Draw a straight line in a figure."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def circle(x: float, y: float, radius: float, class_: str, tooltip: str = "") -> Markup:
    inside = (element("title", tooltip),) if tooltip else ()
    return element("circle", *inside, cx=x, cy=y, r=radius, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """Return a rectangle; a negative width or height runs the other way."""
    left, top = min(x, x + width), min(y, y + height)
    return element("rect", x=left, y=top, width=abs(width), height=abs(height), class_=class_)


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Draw a line through points in a figure."""
    text = " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)
    return element("polyline", points=text, class_=class_)


def section(
    t: Catalogue,
    key: str,
    *blocks: Content,
    name: str = "",
    class_: str | None = None,
    **values: object,
) -> Markup:
    """Return a section of the page below the heading of its key; its name is the last word."""
    name = name or key.rpartition(".")[2]
    title = element("h2", t(f"{key}.heading", **values), id=f"{name}-heading")
    attributes = {"id": name, "aria_labelledby": f"{name}-heading", "class_": class_}
    return element("section", title, *blocks, **attributes)


def heading(text: str, level: int = 3) -> Markup:
    """Make a heading."""
    return element(f"h{level}", text)


def paragraph(*content: Content, class_: str | None = None) -> Markup:
    """Return a paragraph; nothing where it would be empty."""
    return element("p", *content, class_=class_) if any(content) else Markup()


def quiet(*content: Content) -> Markup:
    """Make a paragraph in small grey type."""
    return paragraph(*content, class_="quiet")


def boxed(text: str) -> Markup:
    return paragraph(text, class_="callout")


def callout(t: Catalogue, key: str, **values: object) -> Markup:
    """Return a remark in a box, with the word that it is about."""
    term, text = t.each(key, ("term", "text"), **values)
    return paragraph(element("strong", term), t("sentence.gap"), text, class_="callout")


def badge(t: Catalogue, outcome: str, word: str = "") -> Markup:
    """Draw an outcome as an icon with a word."""
    icon = element("span", ICONS[outcome], class_="icon", aria_hidden="true")
    return element("span", icon, word or t(f"outcome.{outcome}"), class_=f"badge {outcome}")


def link(anchor: str, text: str) -> Markup:
    """Return a link to a place of the page; the text alone where there is none."""
    return element("a", text, href=f"#{anchor}") if anchor else joined(text)


def page_link(t: Catalogue, path: str, text: str, **attributes: str | None) -> Markup:
    """Return a link to a page of the explorer, in the same language."""
    return element("a", text, href=f"{path}?lang={t.lang}", **attributes)


def items(texts: Iterable[Content], class_: str | None = None) -> Markup:
    """Make a list of points."""
    return element("ul", *(element("li", text) for text in texts), class_=class_)


def facts(
    pairs: Iterable[tuple[str, Content]], class_: str | None = None, value_class: str | None = None
) -> Markup:
    rows = (
        element("div", element("dt", term), element("dd", text, class_=value_class))
        for term, text in pairs
    )
    return element("dl", *rows, class_=class_)


def figure(drawing: Content, caption: str = "", class_: str | None = None) -> Markup:
    """Return a drawing with what stands above it."""
    above = (element("figcaption", caption),) if caption else ()
    return element("figure", *above, drawing, class_=class_)


def drawings(pairs: Iterable[tuple[str, Content]], class_: str = "drawings") -> Markup:
    """Draw figures beside each other, each with its caption."""
    return element("div", *(figure(drawing, caption) for caption, drawing in pairs), class_=class_)


def vector_image(
    painter: Painter, values: Sequence[float], alt: str, side: int | None = 112
) -> Markup:
    """Return a vector as an image; a strip where inputs are no images."""
    height = {112: 36, 44: 20, None: None}[side] if painter.is_strip else side
    class_ = f"vector{' strip' if painter.is_strip else ''}"
    return element(
        "img", class_=class_, src=painter.vector(values), alt=alt, width=side, height=height
    )


@dataclass(frozen=True)
class Column:
    """A column of a table: what stands above it, and whether it holds numbers."""

    name: Content
    numeric: bool = True
    class_: str = ""
    meaning: str = ""  # shown beside the pointer

    @property
    def classes(self) -> str | None:
        return " ".join(filter(None, ("num" if self.numeric else "", self.class_))) or None


def heads(*names: Column | str) -> list[Column]:
    """Return columns; one that is a text holds numbers, unless it is the first."""
    return [
        Column(name, numeric=place > 0) if isinstance(name, str) else name
        for place, name in enumerate(names)
    ]


@dataclass(frozen=True)
class Row:
    cells: Sequence[Content]
    class_: str | None = None
    spans: bool = False  # the last cell runs to the end of the row


def table(
    t: Catalogue,
    caption: Content,
    columns: Iterable[Column | str],
    rows: Iterable[Row | Sequence[Content]],
    *,
    named: Sequence[int] = (0,),
    class_: str | None = None,
    label: str = "",
    above: Content = "",
    below: Content = "",
) -> Markup:
    """Return a table that scrolls sideways where the page is narrow.

    The cells at `named` say what a row is. `label` names the table where the caption is empty or
    long; `above` is a further row of the head, `below` the foot.
    """
    known = heads(*columns)
    head = element(
        "tr",
        *(
            element("th", one.name, scope="col", class_=one.classes, title=one.meaning or None)
            if one.name
            else element("td", "")
            for one in known
        ),
    )
    body = (_row(known, row if isinstance(row, Row) else Row(row), named) for row in rows)
    title = element("caption", element("span", caption, class_="caption")) if caption else Markup()
    parts = (title, element("thead", *((above,) if above else ()), head), element("tbody", *body))
    whole = element("table", *parts, *((below,) if below else ()), class_=class_)
    name = t("page.scroll", name=label or Markup(caption).striptags())  # noqa: S704 - a text again
    return element("div", whole, class_="scroll", tabindex="0", role="region", aria_label=name)


def keyed(t: Catalogue, prefix: str, keys: str, words: str | None = None) -> list[Column]:
    """Return a column for each key, named below a prefix; those in `words` hold no numbers.

    Left out, that is the first one.
    """
    known = keys.split()
    plain = known[:1] if words is None else words.split()
    names = t.each(prefix, known)
    return [Column(name, key not in plain) for key, name in zip(known, names, strict=True)]


def keyed_table(
    t: Catalogue,
    prefix: str,
    keys: str,
    rows: Iterable[Row | Sequence[Content]],
    words: str | None = None,
    named: Sequence[int] = (0,),
    class_: str | None = None,
) -> Markup:
    """Return a table whose caption and columns stand below one prefix in the catalogue."""
    columns = keyed(t, prefix, keys, words)
    return table(t, t(f"{prefix}.caption"), columns, rows, named=named, class_=class_)


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
    remarks = (element("span", text, class_="quiet") for text in more)
    head = element("summary", element(f"h{level}", title), *remarks)
    attributes = {"class_": "card", "id": anchor, "open": "" if is_open else None}
    return element("details", head, *content, **attributes)
