"""One effect of masks against their length, one line for each kind of mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bilens.report.svg import Axis, drawing, element, label, line, polyline

WIDTH, HEIGHT = 380.0, 270.0
LEFT, RIGHT, TOP, BOTTOM = 52.0, 14.0, 14.0, 44.0
MOST_STEPS = 5  # between the lowest and the highest margin
CLOSEST = 26.0  # between two ticks of the length


@dataclass(frozen=True)
class EffectAxis:
    """What is drawn upwards.

    Attributes:
        ticks: the values that have a line, rising; the ends are the ends of the axis.
        text: how a value is written.
    """

    ticks: tuple[float, ...]
    text: Callable[[float], str]


def effect_chart(
    title: str,
    description: str,
    x_name: str,
    epsilons: Sequence[float],
    rows: Sequence[tuple[str, Sequence[float]]],
    upwards: EffectAxis,
) -> Markup:
    """Return the drawing.

    Args:
        title: its name.
        description: what it shows, for those who cannot see it.
        x_name: the name of the length.
        epsilons: lengths, rising.
        rows: the class of a line, and its values.
        upwards: the axis of the effect.
    """
    x = Axis(epsilons[0], epsilons[-1], LEFT, WIDTH - RIGHT)
    y = Axis(upwards.ticks[0], upwards.ticks[-1], HEIGHT - BOTTOM, TOP)
    return drawing(
        WIDTH,
        HEIGHT,
        title,
        description,
        *grid(x, y, x_name, epsilons, upwards),
        *(
            part
            for class_, values in rows
            for part in curve(class_, [(x(e), y(v)) for e, v in zip(epsilons, values, strict=True)])
        ),
        class_="chart wide effect",
    )


def curve(class_: str, points: list[tuple[float, float]]) -> list[Markup]:
    """Return a line through points, with a dot at each of them."""
    dots = [element("circle", cx=x, cy=y, r=2.5, class_=f"dot {class_}") for x, y in points]
    return [polyline(points, f"kind {class_}"), *dots]


def grid(
    x: Axis, y: Axis, x_name: str, epsilons: Sequence[float], upwards: EffectAxis
) -> list[Markup]:
    """Return the lines and numbers of both axes; zero is stronger."""
    parts = []
    for value in upwards.ticks:
        class_ = "zero" if value == 0 else "grid"
        parts.append(line(LEFT, y(value), WIDTH - RIGHT, y(value), class_))
        parts.append(label(LEFT - 8, y(value) + 4, upwards.text(value), "tick", "end"))
    last = -CLOSEST
    for epsilon in epsilons:
        if x(epsilon) - last >= CLOSEST:
            last = x(epsilon)
            parts.append(label(last, HEIGHT - BOTTOM + 18, f"{epsilon:g}", "tick", "middle"))
    parts.append(label((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 8, x_name, "tick", "middle"))
    return parts


def swatch(class_: str) -> Markup:
    """Return a short piece of a line, for a legend; the words stand beside it."""
    return element(
        "svg",
        line(1, 6, 33, 6, f"kind {class_}"),
        element("circle", cx=17, cy=6, r=2.5, class_=f"dot {class_}"),
        class_="chart swatch",
        viewBox="0 0 34 12",
        width=34,
        height=12,
        aria_hidden="true",
    )


def kind_class(kind: dict[str, Any]) -> str:
    """Return the class that colours a kind of mask; the edge shares the colour of the whole."""
    return f"kind-{kind['kind'].removesuffix('_edge').replace('_', '-')}"


def share_axis(text: Callable[[float], str]) -> EffectAxis:
    """Return an axis from 0 to 1."""
    return EffectAxis((0.0, 0.25, 0.5, 0.75, 1.0), text)


def margin_axis(values: Sequence[float], text: Callable[[float], str]) -> EffectAxis:
    """Return an axis with round ticks that holds all values and zero."""
    low, high = min(0.0, *values), max(0.0, *values)
    span = (high - low) or 1.0
    unit = 10.0 ** math.floor(math.log10(span / MOST_STEPS))
    step = next(unit * n for n in (1, 2, 5, 10) if span <= MOST_STEPS * unit * n)
    first, last = math.floor(low / step), max(math.ceil(high / step), 1)
    return EffectAxis(tuple(step * place for place in range(first, last + 1)), text)
