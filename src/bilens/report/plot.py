"""The grammar of charts: scales, axes with ticks, marks on a plane.

A chart is a `Plot` of two axes and the marks drawn on it. Colours and dashes come from classes:
`pos`, `neg`, `strong`, `curve`, `band`, ….
"""

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal, NamedTuple

from markupsafe import Markup

from bilens.report.markup import Figure, circle, element, joined, label, line, polyline, rectangle
from bilens.report.text import MINUS, fitted, percent, text_width

Points = Sequence[tuple[float, float]]
Texts = tuple[str, str]  # title and description of a chart, or the names of its axes
LETTERS = 12.0  # size of a text
LARGE = 16.0  # of those in wide charts on a narrow page
MOST_TICKS = 8
PADDING = 0.07  # of the range, beyond the first and the last value


@dataclass(frozen=True)
class Scale:
    """A map from values to positions in a drawing, linear after `warp`."""

    low: float
    high: float
    start: float  # the place of `low`
    end: float  # the place of `high`
    warp: Callable[[float], float] = float

    def __call__(self, value: float) -> float:
        low, high = self.warp(self.low), self.warp(self.high)
        share = (self.warp(value) - low) / (high - low) if high != low else 0.5
        return self.start + share * (self.end - self.start)


def tick_step(span: float, most: int) -> float:
    """Return the least of 1, 2, 5 times a power of ten that a span holds at most so many times."""
    unit = 10.0 ** math.floor(math.log10(span / most))
    return next(unit * n for n in (1, 2, 5, 10) if span <= most * unit * n)


def multiples(step: float, first: int, last: int) -> tuple[float, ...]:
    """Return multiples of a step without the noise of their last digits."""
    return tuple(float(f"{step * position:.12g}") for position in range(first, last + 1))


class Range(NamedTuple):
    """The values between which an axis runs, and those of them that it marks."""

    low: float
    high: float
    ticks: Sequence[float] = ()


def within(low: float, high: float, most: int = MOST_TICKS) -> Range:
    """Return a range with few round ticks inside it."""
    step = tick_step(high - low, most)
    return Range(low, high, multiples(step, math.ceil(low / step), math.floor(high / step)))


def padded(values: Iterable[float], most: int = MOST_TICKS) -> Range:
    """Return a range that holds all values and zero, with some room; never an empty one."""
    known = [0.0, *values]
    low, high = min(known), max(known)
    room = PADDING * ((high - low) or 1.0)
    return within(low - room, high + room, most)


def rounded(values: Iterable[float]) -> Range:
    """Return a range that holds all values and begins and ends at round ticks."""
    known = [*values]
    low, high = min(known), max(known)
    step = tick_step((high - low) or abs(high) or 1.0, 6)
    first = math.floor(low / step)
    ticks = multiples(step, first, max(math.ceil(high / step), first + 1))
    return Range(ticks[0], ticks[-1], ticks)


@dataclass(frozen=True)
class Axis:
    """A range of values, its ticks, how they are written, and its name."""

    span: Range
    text: Callable[[float], str] = lambda value: f"{value:g}".replace("-", MINUS)
    name: str = ""
    lines: Literal["across", "short", "none"] = "across"  # how a tick is marked beside its number
    warp: Callable[[float], float] = float


SHARES = Axis(Range(0, 1, (0, 0.25, 0.5, 0.75, 1)), lambda share: percent(share, 0))


@dataclass(frozen=True)
class Plot:
    """A plane with two axes; every mark takes values and returns what is drawn."""

    x: Axis
    y: Axis
    width: float
    height: float
    class_: str = "chart"
    letters: float = LETTERS  # size of the numbers where they are largest, on a narrow page
    top: float = 14.0
    right: float = 14.0

    @property
    def start(self) -> float:
        """Where the plane begins: beside the name and the numbers of the vertical axis."""
        texts = [text_width(self.y.text(value), self.letters) for value in self.y.span.ticks]
        return (self.letters + 10 if self.y.name else 2) + 8 + max(texts, default=0.0)

    @property
    def end(self) -> float:
        """Where the plane ends on the right: half of the last number may stand beyond it."""
        last = self.x.text(self.x.span.ticks[-1]) if self.x.span.ticks else ""
        return self.width - max(self.right, text_width(last, self.letters) / 2)

    @property
    def base(self) -> float:
        """The height of the lower edge."""
        return self.height - (46 if self.x.name else 28)

    @property
    def across(self) -> Scale:
        return Scale(self.x.span.low, self.x.span.high, self.start, self.end, self.x.warp)

    @property
    def upwards(self) -> Scale:
        return Scale(self.y.span.low, self.y.span.high, self.base, self.top, self.y.warp)

    def figure(
        self, title: str, description: str, *marks: str, behind: str = "", around: str = ""
    ) -> Figure:
        """Return axes and marks; `behind` is drawn before them, and texts around them after."""
        content = joined(behind, self.frame(), *marks, around)
        return Figure(title, description, self.width, self.height, content, self.class_)

    def frame(self) -> Markup:
        """Return the ticks, the numbers and the names of both axes."""
        x, y, parts = self.across, self.upwards, []
        for value in self.x.span.ticks:
            kind = "zero" if value == 0 else "grid"
            if self.x.lines == "across":
                parts.append(line(x(value), self.top, x(value), self.base, kind))
            elif self.x.lines == "short":
                parts.append(line(x(value), self.base, x(value), self.base + 5, "axis"))
            parts.append(label(x(value), self.base + 17, self.x.text(value), "tick", "middle"))
        for value in self.y.span.ticks:
            kind = "zero" if value == 0 else "grid"
            if self.y.lines == "across" or value == 0:
                parts.append(line(self.start, y(value), self.end, y(value), kind))
            if self.y.lines == "short":
                parts.append(line(self.start - 3, y(value), self.start, y(value), "axis"))
            parts.append(label(self.start - 7, y(value) + 4, self.y.text(value), "tick", "end"))
        if self.x.name:
            middle = (self.start + self.end) / 2
            name = fitted(self.x.name, self.letters, 2 * min(middle, self.width - middle))
            parts.append(label(middle, self.height - 8, name, "tick", "middle"))
        if self.y.name:
            middle = (self.top + self.base) / 2
            name = fitted(self.y.name, self.letters, 2 * min(middle, self.height - middle))
            look = {"class_": "tick", "text_anchor": "middle"}
            turn = f"rotate(-90 {self.letters:g} {middle:g})"
            parts.append(element("text", name, x=self.letters, y=middle, **look, transform=turn))
        return joined(*parts)

    def line(self, points: Points, class_: str = "curve") -> Markup:
        x, y = self.across, self.upwards
        return polyline([(x(a), y(b)) for a, b in points], class_)

    def steps(self, points: Points, class_: str = "curve") -> Markup:
        """Return a line that has, between two points, the height of the right one."""
        corners = [points[0]]
        for (before, _), (after, height) in pairwise(points):
            corners += [(before, height), (after, height)]
        return self.line(corners, class_)

    def dots(self, points: Points, class_: str = "dot", radius: float = 3.0) -> Markup:
        x, y = self.across, self.upwards
        return joined(*(circle(x(a), y(b), radius, class_) for a, b in points))

    def stem(self, position: float, value: float, class_: str, radius: float = 4.0) -> Markup:
        """Return a dot on a line from zero, in the colour of its sign."""
        x, y, side = self.across(position), self.upwards, sign_class(value)
        class_ = f"{side} {class_}".strip()
        return joined(
            line(x, y(0), x, y(value), f"stem {class_}"), circle(x, y(value), radius, class_)
        )

    def level(self, value: float) -> Markup:
        return line(self.start, self.upwards(value), self.end, self.upwards(value), "edge")

    def band(self, low: float, high: float) -> Markup:
        """Return an interval across, with its edges."""
        y = self.upwards
        area = rectangle(self.start, y(high), self.end - self.start, y(low) - y(high), "band")
        return joined(area, self.level(high), self.level(low))

    def pointer(self, position: float, value: float, text: str) -> Markup:
        """Return a ring around a point, a line down to the axis, and words at its emptier end.

        That is at the foot of the line, or at the top where the point lies in the lower half.
        """
        x, y = self.across(position), self.upwards(value)
        side, anchor = (10, "start") if x < 0.6 * self.width else (-10, "end")
        place = self.base - 10 if y < (self.top + self.base) / 2 else self.top + LETTERS
        return joined(
            line(x, y + 7, x, self.base, "pointer"),
            circle(x, y, 7.0, "ring"),
            label(x + side, place, text, "strong", anchor),
        )

    def legend(self, entries: Sequence[tuple[str, str]]) -> Markup:
        """Return class and name of curves beside each other, above the plane, in rows."""
        parts, x, y = list[Markup](), self.start, LETTERS
        for class_, name in entries:
            width = text_width(name, LETTERS)
            if x > self.start and x + 36 + width > self.end:
                x, y = self.start, y + 20
            parts += [line(x, y - 4, x + 28, y - 4, class_), label(x + 36, y, name, "note")]
            x += 36 + width + 24
        return joined(*parts)


def sign_class(value: float) -> str:
    """Return the class that colours a sign: blue from zero on, red below."""
    return "pos" if value >= 0 else "neg"


def key_list(entries: Iterable[tuple[str, str]]) -> Markup:
    """Return the legend of several charts: (class, name) of each curve, beside a short line."""
    rows = []
    for class_, name in entries:
        swatch = element(
            "svg",
            line(1, 6, 33, 6, f"kind {class_}"),
            circle(17, 6, 2.5, f"dot {class_}"),
            class_="chart swatch",
            viewBox="0 0 34 12",
            width=34,
            height=12,
            aria_hidden="true",
        )
        rows.append(element("li", swatch, element("span", name)))
    return element("ul", *rows, class_="keys")
