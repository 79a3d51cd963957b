"""Two axes with round numbers, on which points and lines are drawn."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from markupsafe import Markup

from bilens.report.charts.spectrum import round_values
from bilens.report.numbers import MINUS
from bilens.report.svg import Axis, element, label, line, text_width

PADDING = 0.06  # of the range, beyond the first and the last value
RIGHT, TOP, BOTTOM = 14.0, 14.0, 46.0
NAME, SIZE = 22.0, 12.0  # room for the name of the vertical axis, and the size of its numbers
MOST_TICKS = 6
Text = Callable[[float], str]


def plain(value: float) -> str:
    """Return a round number without needless digits."""
    return f"{value:g}".replace("-", MINUS)


@dataclass(frozen=True)
class Plane:
    """A drawing area with both axes.

    Attributes:
        width: of the drawing.
        height: of the drawing.
        x: the horizontal axis.
        y: the vertical axis.
        text: how a number is written.
    """

    width: float
    height: float
    x: Axis
    y: Axis
    text: Text = plain

    @classmethod
    def of(
        cls,
        x: tuple[float, float],
        y: tuple[float, float],
        size: tuple[float, float],
        text: Text = plain,
    ) -> Plane:
        """Return the plane of two ranges, with room for the numbers on the left."""
        upwards = Axis(*y, size[1] - BOTTOM, TOP)
        left = NAME + 6 + max(text_width(text(value), SIZE) for value in ticks(upwards))
        return cls(*size, Axis(*x, left, size[0] - RIGHT), upwards, text)

    @property
    def base(self) -> float:
        """The height of the lower edge."""
        return self.height - BOTTOM

    def grid(self, x_name: str, y_name: str, marks: Sequence[float] | None = None) -> list[Markup]:
        """Return lines at round numbers, the numbers, and the names of the axes.

        Args:
            x_name: of the horizontal axis.
            y_name: of the vertical axis.
            marks: numbers on the horizontal axis; None for round ones.
        """
        parts, left = [], self.x.start
        for value in ticks(self.x) if marks is None else marks:
            place = self.x(value)
            kind = "zero" if value == 0 else "grid"
            parts.append(line(place, TOP, place, self.base, kind))
            parts.append(label(place, self.base + 16, self.text(value), "tick", "middle"))
        for value in ticks(self.y):
            place = self.y(value)
            kind = "zero" if value == 0 else "grid"
            parts.append(line(left, place, self.width - RIGHT, place, kind))
            parts.append(label(left - 6, place + 4, self.text(value), "tick", "end"))
        middle = (left + self.width - RIGHT) / 2
        parts.append(label(middle, self.height - 8, x_name, "tick", "middle"))
        parts.append(upright(12, (TOP + self.base) / 2, y_name))
        return parts


def upright(x: float, y: float, text: str) -> Markup:
    """Return a text that runs upwards."""
    turn = f"rotate(-90 {x:g} {y:g})"
    return element("text", text, x=x, y=y, class_="tick", text_anchor="middle", transform=turn)


def padded(values: Iterable[float]) -> tuple[float, float]:
    """Return the range of values and zero, with some room; never an empty one."""
    known = [0.0, *values]
    low, high = min(known), max(known)
    room = PADDING * ((high - low) or 1.0)
    return low - room, high + room


def ticks(axis: Axis) -> list[float]:
    """Return round numbers on an axis, not too many, zero among them where it has a place."""
    found = round_values(axis.low, axis.high)
    step = -(-len(found) // MOST_TICKS)
    first = found.index(0.0) % step if 0.0 in found else 0
    return found[first::step]
