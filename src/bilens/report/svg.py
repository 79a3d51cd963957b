"""SVG elements as text; whatever is not markup already is escaped."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDE_FROM = 0x1100  # code points from here on are mostly as wide as high


def element(tag: str, *children: str, **attributes: str | float | None) -> Markup:
    """Return one element.

    Args:
        tag: its name.
        children: elements, or texts that will be escaped.
        attributes: `stroke_width` stands for stroke-width, `class_` for class; None is left out.
    """
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


def drawing(
    width: float, height: float, title: str, description: str, *children: str, class_: str
) -> Markup:
    """Return an inline drawing with a name and a description for those who cannot see it."""
    return element(
        "svg",
        element("title", title),
        element("desc", description),
        *children,
        class_=class_,
        viewBox=f"0 0 {width:g} {height:g}",
        width=width,
        height=height,
        role="img",
    )


def label(x: float, y: float, text: str, class_: str = "", anchor: str = "start") -> Markup:
    """Return a text at a point of its base line."""
    return element(
        "text",
        text,
        x=x,
        y=y,
        class_=class_ or None,
        text_anchor=None if anchor == "start" else anchor,
    )


def line(x1: float, y1: float, x2: float, y2: float, class_: str) -> Markup:
    """Return a straight line."""
    return element("line", x1=x1, y1=y1, x2=x2, y2=y2, class_=class_)


def rectangle(x: float, y: float, width: float, height: float, class_: str) -> Markup:
    """Return a rectangle; a negative width or height runs the other way."""
    return element(
        "rect",
        x=min(x, x + width),
        y=min(y, y + height),
        width=abs(width),
        height=abs(height),
        class_=class_,
    )


def polyline(points: Sequence[tuple[float, float]], class_: str) -> Markup:
    """Return a line through points."""
    text = " ".join(f"{round(x, 1):g},{round(y, 1):g}" for x, y in points)
    return element("polyline", points=text, class_=class_)


@dataclass(frozen=True)
class Axis:
    """A linear map from values to places in a drawing."""

    low: float
    high: float
    start: float  # the place of `low`
    end: float  # the place of `high`

    def __call__(self, value: float) -> float:
        """Return the place of a value."""
        span = self.high - self.low
        share = (value - self.low) / span if span else 0.5
        return self.start + share * (self.end - self.start)


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
