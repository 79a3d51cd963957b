"""SVG as text: elements, and figures that also say what they show; what is no markup is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from markupsafe import Markup, escape

WIDE_FROM = 0x1100  # code points from here on are mostly as wide as high
FONTS = (
    'text{font-family:system-ui,-apple-system,"Segoe UI",Roboto,"Noto Sans","Helvetica Neue",Arial,'
    '"Hiragino Sans","Noto Sans CJK JP",sans-serif;fill:#1c2430}'
    ".title{font-size:20px;font-weight:650}"
)


class SupportsHtml(Protocol):
    """What is markup by itself."""

    def __html__(self) -> str: ...


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
        head = (element("title", self.title), element("desc", self.description))
        return self._svg(*head, self.content, class_=self.class_)

    def __str__(self) -> str:
        """Return the same as text."""
        return self.__html__()

    def file(self, style: str) -> str:
        """Return it as a file that stands alone: white background, no script, no reference."""
        svg = self._svg(
            element("title", self.title),
            element("desc", self.description),
            element("style", Markup(FONTS + style)),  # noqa: S704 - constants
            element("rect", width=self.width, height=self.height, fill="#ffffff"),
            self.content,
            xmlns="http://www.w3.org/2000/svg",
        )
        return f"{svg}\n"

    def _svg(self, *children: str, **attributes: str) -> Markup:
        return element(
            "svg",
            *children,
            **attributes,
            viewBox=f"0 0 {self.width:g} {self.height:g}",
            width=self.width,
            height=self.height,
            role="img",
        )


def element(tag: str, *children: str | SupportsHtml, **attributes: str | float | None) -> Markup:
    """Return one element; `stroke_width` is stroke-width, `class_` is class, None is left out."""
    parts = [
        f' {name.rstrip("_").replace("_", "-")}="{escape(_value(value))}"'
        for name, value in attributes.items()
        if value is not None
    ]
    opening = f"<{tag}{''.join(parts)}"
    if not children:
        return Markup(opening + "/>")  # noqa: S704 - the parts are escaped above
    content = "".join(escape(child) for child in children)
    return Markup(f"{opening}>{content}</{tag}>")  # noqa: S704 - escaped as well


def _value(value: str | float) -> str:
    return value if isinstance(value, str) else f"{round(value, 2):g}"


def joined(*parts: str) -> Markup:
    """Return elements one after the other."""
    return Markup().join(parts)


def label(x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> Markup:
    """Return a text at a point of its base line."""
    anchor_or_none = None if anchor == "start" else anchor
    return element("text", text, x=x, y=y, class_=class_ or None, text_anchor=anchor_or_none)


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def circle(x: float, y: float, radius: float, class_: str, tooltip: str = "") -> Markup:
    """Return a filled circle."""
    inside = (element("title", tooltip),) if tooltip else ()
    return element("circle", *inside, cx=x, cy=y, r=radius, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """Return a rectangle; a negative width or height runs the other way."""
    left, top = min(x, x + width), min(y, y + height)
    return element("rect", x=left, y=top, width=abs(width), height=abs(height), class_=class_)


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points."""
    text = " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)
    return element("polyline", points=text, class_=class_)


def shortened(text: str, length: int) -> str:
    """Return a text cut to a length, with an ellipsis where it was cut."""
    return text if len(text) <= length else text[: length - 1] + "…"


def text_width(text: str, size: float) -> float:
    """Return about how wide a text is drawn; fonts differ, so leave some room."""
    return size * sum(1.0 if ord(character) >= WIDE_FROM else 0.62 for character in text)


def fitted(text: str, size: float, width: float) -> str:
    """Return a text cut so that it fits into a width."""
    length = len(text)
    while length > 1 and text_width(shortened(text, length), size) > width:
        length -= 1
    return shortened(text, length)
