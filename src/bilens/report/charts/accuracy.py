"""Shares of right answers: measured, with few eigenvectors, certified, and under perturbations."""

from __future__ import annotations

import math
from collections.abc import Sequence

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import percent, quantity, whole
from bilens.report.plot import SHARES, Axis, Plot, Points, Scale, rounded
from bilens.report.svg import Figure, circle, element, joined, label, line, rectangle

KEPT = (0, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000)  # ticks of k
CLOSEST = 0.07  # between two ticks, as a share of the axis
LARGE = 16.0  # letters of wide charts on a narrow page
PICTURE = 120.0  # longer side of an image


def accuracy_bar(t: Catalogue, value: float, low: float, high: float) -> Figure:
    """Return a bar up to the accuracy, and the interval over it."""
    x = Scale(0, 1, 8, 428)
    texts = {"value": percent(value), "low": percent(low), "high": percent(high)}
    anchors = ("start", "middle", "middle", "middle", "end")
    content = joined(
        rectangle(x(0), 12, x(1) - x(0), 14, "track"),
        rectangle(x(0), 12, x(value) - x(0), 14, "fill"),
        line(x(low), 19, x(high), 19, "whisker"),
        line(x(low), 11, x(low), 27, "whisker"),
        line(x(high), 11, x(high), 27, "whisker"),
        circle(x(value), 19, 3.5, "whisker-dot"),
        *(
            label(x(tick), 46, SHARES.text(tick), "tick", anchor)
            for tick, anchor in zip(SHARES.ticks, anchors, strict=True)
        ),
    )
    title, text = t("accuracy.chart"), t("accuracy.chart_text", **texts)
    return Figure(title, text, 440, 56, content, "chart accuracy-bar")


def truncation_chart(
    t: Catalogue, accuracy: Points, agreement: Points, mark: tuple[int, float] | None
) -> Figure:
    """Return accuracy and agreement against the number k of eigenvectors kept."""
    last, full = accuracy[-1]
    room = (1 - CLOSEST) * math.log1p(last)
    ticks = [*(k for k in KEPT if math.log1p(k) < room), last]
    kept = Axis(0, last or 1, ticks, whole, t("truncation.x"), "short", math.log1p)
    plot = Plot(kept, SHARES, 560, 300, "chart wide truncation", LARGE, top=26)
    text = t("truncation.full", value=percent(full))
    marks = [
        plot.level(full),
        label(plot.end, plot.upwards(full) + 18, text, "note", "end"),
        plot.line(agreement, "curve second"),
        plot.line(accuracy),
        plot.dots(accuracy, radius=3.5),
    ]
    if mark is not None:
        k, value = mark
        words = t("truncation.mark", k=whole(k), value=percent(value))
        marks.append(plot.pointer(k, value, words))
    names = [("curve", t("truncation.accuracy")), ("curve second", t("truncation.agreement"))]
    return plot.figure(
        t("truncation.chart"),
        t(
            "truncation.chart_text",
            first=percent(accuracy[0][1]),
            full=percent(full),
            of=whole(last),
        ),
        *marks,
        plot.legend(0.4 * plot.width, plot.base - 62, names),
    )


def radii_chart(t: Catalogue, curve: Points, median: float | None) -> Figure:
    """Return certified accuracy against the length of a change, rising from 0."""
    end = curve[-1][0]
    ticks = [end * part / 5 for part in range(6)]
    lengths = Axis(0, end, ticks, lambda value: quantity(value, 2), t("radii.x"), "short")
    plot = Plot(lengths, SHARES, 560, 300, "chart wide radii", LARGE, top=26, right=20)
    marks = [plot.steps(curve)]
    if median:
        marks.append(
            plot.pointer(median, 0.5, t("radii.median", value=quantity(median)), above=True)
        )
    text = t(
        "radii.chart_text",
        first=percent(curve[0][1]),
        last=percent(curve[-1][1]),
        end=quantity(end),
    )
    return plot.figure(t("radii.chart"), text, *marks)


def effect_chart(
    title: str,
    description: str,
    x_name: str,
    epsilons: Sequence[float],
    curves: Sequence[tuple[str, Sequence[float]]],
    upwards: Axis,
) -> Figure:
    """Return one effect of perturbations against their length, a line for each class of curves."""
    ticks, apart = [epsilons[0]], CLOSEST * (epsilons[-1] - epsilons[0])
    for epsilon in epsilons:
        if epsilon - ticks[-1] >= apart:
            ticks.append(epsilon)
    lengths = Axis(epsilons[0], epsilons[-1], ticks, "{:g}".format, x_name, "none")
    plot = Plot(lengths, upwards, 380, 270, "chart wide effect", LARGE)
    marks = []
    for class_, values in curves:
        points = [*zip(epsilons, values, strict=True)]
        marks += [plot.line(points, f"kind {class_}"), plot.dots(points, f"dot {class_}", 2.5)]
    return plot.figure(title, description, *marks)


def margin_axis(values: Sequence[float]) -> Axis:
    """Return an axis with round ends that holds all margins and zero."""
    return Axis(*rounded([0.0, *values]))


def trigger_patch(
    t: Catalogue, corner: tuple[int, int], side: int, shape: tuple[int, int], name: str
) -> Figure:
    """Return the frame of an image with a square in it, one line for each pixel."""
    (row, column), (rows, columns), pad = corner, shape, 2.0
    pixel = PICTURE / max(shape)
    height, width = rows * pixel, columns * pixel
    content = joined(
        *(line(pad, pad + y * pixel, pad + width, pad + y * pixel, "grid") for y in range(rows)),
        *(
            line(pad + x * pixel, pad, pad + x * pixel, pad + height, "grid")
            for x in range(columns)
        ),
        element("rect", x=pad, y=pad, width=width, height=height, class_="axis", fill="none"),
        rectangle(pad + column * pixel, pad + row * pixel, side * pixel, side * pixel, "trigger"),
    )
    title = t("triggers.picture_title", name=name)
    text = t("triggers.position", row=str(row), column=str(column), side=str(side))
    return Figure(title, text, width + 2 * pad, height + 2 * pad, content, "chart trigger-patch")
