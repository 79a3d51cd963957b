"""The spectrum of one class: both ends of it, with the level of chance as a band behind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import fixed, signed, signed_quantity
from bilens.report.svg import Axis, drawing, element, label, line, polyline, rectangle

WIDTH, HEIGHT = 440.0, 264.0
LEFT, RIGHT, TOP, BOTTOM = 46.0, 8.0, 12.0, 34.0
END = 20  # eigenvalues drawn at each end
GAP = 4  # slots left free where the middle is not drawn
PADDING = 0.08  # of the range, above and below


def spectrum_chart(t: Catalogue, reading: dict[str, Any], name: str) -> Markup:
    """Return the eigenvalues of a class by falling value; those beyond chance in full colour."""
    values, low, high = reading["eigenvalues"], reading["lower_edge"], reading["upper_edge"]
    y = vertical_axis([*values, low, high, 0.0])
    slots, hidden = place(values)
    x = Axis(-1, max(slots[-1], 1) + 1, LEFT, WIDTH - RIGHT)
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
        *chance_band(y, low, high),
        *ticks(y),
        *stems(values, slots, x, y, low, high),
        *chance_labels(t, y, low, high),
        *names_below(t, x, slots, len(values), hidden),
        class_="chart spectrum",
    )


def vertical_axis(values: Sequence[float]) -> Axis:
    """Return the axis of the eigenvalues, with some room at both ends."""
    low, high = min(values), max(values)
    room = PADDING * (high - low or 1.0)
    return Axis(low - room, high + room, HEIGHT - BOTTOM, TOP)


def place(values: Sequence[float]) -> tuple[list[int | None], int]:
    """Return the slot of each eigenvalue, None where it is not drawn, and how many are not."""
    count = len(values)
    if count <= 2 * END + GAP:
        return list(range(count)), 0
    tail = range(END + GAP, 2 * END + GAP)
    return [*range(END), *[None] * (count - 2 * END), *tail], count - 2 * END


def chance_band(y: Axis, low: float, high: float) -> list[Markup]:
    """Return the band between the edges of chance."""
    width = WIDTH - LEFT - RIGHT
    return [
        rectangle(LEFT, y(high), width, y(low) - y(high), "band"),
        line(LEFT, y(high), WIDTH - RIGHT, y(high), "edge"),
        line(LEFT, y(low), WIDTH - RIGHT, y(low), "edge"),
    ]


def chance_labels(t: Catalogue, y: Axis, low: float, high: float) -> list[Markup]:
    """Return the names of the edges, where the other sign leaves room."""
    return [
        label(
            WIDTH - RIGHT - 4,
            y(high) + 14,
            t("spectrum.chance_high", edge=signed_quantity(high, 2)),
            "note",
            "end",
        ),
        label(LEFT + 4, y(low) - 5, t("spectrum.chance_low", edge=signed_quantity(low, 2)), "note"),
    ]


def ticks(y: Axis) -> list[Markup]:
    """Return the zero line and round numbers beside it."""
    step = round_step(y.high - y.low)
    digits = max(0, -_exponent(step))
    parts = [line(LEFT, y(0), WIDTH - RIGHT, y(0), "zero")]
    count = int(max(abs(y.low), abs(y.high)) / step)
    for number in range(-count, count + 1):
        value = number * step
        if y.low <= value <= y.high:
            text = fixed(0, digits) if number == 0 else signed(value, digits)
            parts.append(label(LEFT - 6, y(value) + 4, text, "tick", "end"))
            parts.append(line(LEFT - 3, y(value), LEFT, y(value), "axis"))
    return parts


def round_step(span: float) -> float:
    """Return 1, 2 or 5 times a power of ten, so that four to nine steps fit into a span."""
    power = 10.0 ** _exponent(span / 4)
    return max(factor * power for factor in (1, 2, 5) if factor * power <= span / 4)


def _exponent(value: float) -> int:
    return int(f"{value:e}".split("e")[1])


def stems(
    values: Sequence[float],
    slots: Sequence[int | None],
    x: Axis,
    y: Axis,
    low: float,
    high: float,
) -> list[Markup]:
    """Return a stem with a dot for each eigenvalue drawn."""
    parts = []
    for value, slot in zip(values, slots, strict=True):
        if slot is None:
            continue
        strong = value > high or value < low
        class_ = ("pos" if value >= 0 else "neg") + (" strong" if strong else "")
        parts.append(line(x(slot), y(0), x(slot), y(value), f"stem {class_}"))
        parts.append(
            element("circle", cx=x(slot), cy=y(value), r=4.0 if strong else 2.8, class_=class_)
        )
    return parts


def names_below(
    t: Catalogue, x: Axis, slots: Sequence[int | None], count: int, hidden: int
) -> list[Markup]:
    """Return what the horizontal axis shows."""
    base = HEIGHT - 10
    if hidden == 0:
        middle = (LEFT + WIDTH - RIGHT) / 2
        return [label(middle, base, t("spectrum.all", count=count), "tick", "middle")]
    gap = (x(END - 1) + x(END + GAP)) / 2
    dots = [(gap - 6, HEIGHT - BOTTOM), (gap + 6, HEIGHT - BOTTOM)]
    return [
        label(x(0), base, t("spectrum.largest", count=END), "tick"),
        label(gap, base, t("spectrum.hidden", count=hidden), "tick", "middle"),
        label(x(2 * END + GAP - 1), base, t("spectrum.smallest", count=END), "tick", "end"),
        polyline(dots, "axis"),
    ]
