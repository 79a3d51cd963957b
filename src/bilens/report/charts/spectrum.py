"""The spectrum of one class: both ends of it, with the level of chance as a band behind."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import signed_quantity
from bilens.report.svg import Axis, drawing, element, label, line, rectangle

WIDTH, HEIGHT = 440.0, 264.0
RIGHT, TOP, BOTTOM = 8.0, 12.0, 34.0
END = 20  # eigenvalues drawn at each end
GAP = 4  # slots left free where the middle is not drawn
PADDING = 0.08  # of the range, above and below
CHARACTER = 7.0  # width of a digit of the axis


@dataclass(frozen=True)
class Frame:
    """The axes of one chart, and its left edge."""

    x: Axis
    y: Axis
    left: float
    ticks: tuple[tuple[float, str], ...]


def spectrum_chart(t: Catalogue, reading: dict[str, Any], name: str) -> Markup:
    """Return the eigenvalues of a class by falling value; those beyond chance in full colour."""
    values, low, high = reading["eigenvalues"], reading["lower_edge"], reading["upper_edge"]
    places = places_of(values)
    frame = frame_of([*values, low, high, 0.0], places[-1][0])
    return drawing(
        WIDTH,
        HEIGHT,
        t("spectrum.title", name=name),
        t(
            "spectrum.text",
            positive=reading["significant_positive"],
            negative=reading["significant_negative"],
            low=signed_quantity(low),
            high=signed_quantity(high),
            largest=signed_quantity(max(values)),
            smallest=signed_quantity(min(values)),
        ),
        *chance_band(frame, low, high),
        *axis(frame),
        *stems(places, frame, low, high),
        *chance_labels(t, frame, low, high),
        *names_below(t, frame, len(values), len(values) - len(places)),
        class_="chart spectrum",
    )


def places_of(values: Sequence[float]) -> list[tuple[int, float]]:
    """Return slot and value of each eigenvalue that is drawn: all, or both ends."""
    if len(values) <= 2 * END + GAP:
        return list(enumerate(values))
    return [*enumerate(values[:END]), *enumerate(values[-END:], start=END + GAP)]


def frame_of(values: Sequence[float], last_slot: int) -> Frame:
    """Return the axes on which all these values have a place, with some room at both ends."""
    low, high = min(values), max(values)
    room = PADDING * (high - low or 1.0)
    y = Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)
    ticks = tuple((value, signed_quantity(value, 1)) for value in round_values(y.low, y.high))
    left = 14 + CHARACTER * max(len(text) for _, text in ticks)
    return Frame(Axis(-1, max(last_slot, 1) + 1, left, WIDTH - RIGHT), y, left, ticks)


def round_values(low: float, high: float) -> list[float]:
    """Return the multiples of 1, 2 or 5 times a power of ten in a range, four to nine of them."""
    target = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(target))
    step = max((f * power for f in (1, 2, 5) if f * power <= target), default=power)
    return [n * step for n in range(math.ceil(low / step), math.floor(high / step) + 1)]


def chance_band(frame: Frame, low: float, high: float) -> list[Markup]:
    """Return the band between the edges of chance."""
    left, y, end = frame.left, frame.y, WIDTH - RIGHT
    return [
        rectangle(left, y(high), end - left, y(low) - y(high), "band"),
        line(left, y(high), end, y(high), "edge"),
        line(left, y(low), end, y(low), "edge"),
    ]


def chance_labels(t: Catalogue, frame: Frame, low: float, high: float) -> list[Markup]:
    """Return the names of the edges, where the other sign leaves room."""
    upper, lower = (t("spectrum.chance", edge=signed_quantity(edge, 2)) for edge in (high, low))
    return [
        label(WIDTH - RIGHT - 4, frame.y(high) + 14, upper, "note", "end"),
        label(frame.left + 4, frame.y(low) - 5, lower, "note"),
    ]


def axis(frame: Frame) -> list[Markup]:
    """Return the zero line and round numbers beside it."""
    left, y = frame.left, frame.y
    parts = [line(left, y(0), WIDTH - RIGHT, y(0), "zero")]
    for value, text in frame.ticks:
        parts.append(label(left - 6, y(value) + 4, text, "tick", "end"))
        parts.append(line(left - 3, y(value), left, y(value), "axis"))
    return parts


def stems(
    places: Sequence[tuple[int, float]], frame: Frame, low: float, high: float
) -> list[Markup]:
    """Return a stem with a dot for each eigenvalue drawn."""
    parts = []
    for slot, value in places:
        strong = value > high or value < low
        class_ = ("pos" if value >= 0 else "neg") + (" strong" if strong else "")
        x, y, radius = frame.x(slot), frame.y(value), 4.0 if strong else 2.8
        parts.append(line(x, frame.y(0), x, y, f"stem {class_}"))
        parts.append(element("circle", cx=x, cy=y, r=radius, class_=class_))
    return parts


def names_below(t: Catalogue, frame: Frame, count: int, hidden: int) -> list[Markup]:
    """Return what the horizontal axis shows."""
    base, x = HEIGHT - 10, frame.x
    if hidden == 0:
        middle = (frame.left + WIDTH - RIGHT) / 2
        return [label(middle, base, t("spectrum.all", count=count), "tick", "middle")]
    gap = (x(END - 1) + x(END + GAP)) / 2
    return [
        label(x(-0.5), base, t("spectrum.largest", count=END), "tick"),
        label(gap, base, t("spectrum.hidden", count=hidden), "tick", "middle"),
        label(WIDTH - RIGHT, base, t("spectrum.smallest", count=END), "tick", "end"),
    ]
