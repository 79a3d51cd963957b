"""Scores as bars to both sides of zero, and a score as the running sum of its parts."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import decimals, signed, signed_quantity
from bilens.report.plot import LETTERS, Bar, BarRows, Scale
from bilens.report.svg import Figure, joined, line, rectangle, text_width

MOST = 12  # bars; of more classes the highest are drawn
THINNEST = 1.5  # step of a running sum
Named = Sequence[tuple[str, float]]


def bar_chart(title: str, description: str, rows: Named, beside: Named = ()) -> Figure:
    """Return one bar for each name, in the order given, on the scale of the charts beside it."""
    every = [*rows, *beside]
    names, values = [name for name, _ in every], [value for _, value in every]
    layout = BarRows.of(values, names, width=440, name_width=190)
    bars = [Bar(name, value, signed_quantity(value)) for name, value in rows]
    return layout.figure(title, description, bars)


def score_chart(
    t: Catalogue, scores: Sequence[float], names: Sequence[str], predicted: int, truth: int | None
) -> Figure:
    """Return one bar for each class, in the order of the classes; answer and label are named."""
    digits = decimals(scores)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    shown = chosen(order, truth)
    words = (t("predictions.predicted"), t("predictions.label"))
    bars = []
    for index in shown:
        tags = [word for word, of in zip(words, (predicted, truth), strict=True) if of == index]
        text = signed(scores[index], digits)
        bars.append(Bar(names[index], scores[index], text, " · ".join(tags), bool(tags)))
    layout = BarRows.of(
        [bar.value for bar in bars],
        [bar.name for bar in bars],
        width=400,
        name_width=96,
        tag_width=14 + text_width(" · ".join(words), LETTERS),
    )
    footnote = ""
    if len(scores) > len(shown):
        highest = signed(max(scores[index] for index in order if index not in shown), digits)
        others = len(scores) - len(shown)
        footnote = t("predictions.scores_others", count=others, value=highest)
    first, second = order[0], order[min(1, len(order) - 1)]
    text = t(
        "predictions.scores_text",
        winner=names[first],
        score=signed(scores[first], digits),
        second=names[second],
        second_score=signed(scores[second], digits),
    )
    return layout.figure(t("predictions.scores"), text, bars, footnote)


def chosen(order: list[int], truth: int | None) -> list[int]:
    """Return which classes are drawn: all, or the highest and the label."""
    shown = order[:MOST]
    if truth is not None and truth not in shown:
        shown = [*shown[:-1], truth]
    return sorted(shown)


def running_scale(sums: Sequence[Sequence[float]]) -> Scale:
    """Return the scale on which every partial sum of several lists of steps has a position."""
    positions = [0.0, *(position for steps in sums for position in accumulate(steps))]
    low, high = min(positions), max(positions)
    return Scale(low, high if high > low else low + 1.0, 6, 214)


def running_strip(
    t: Catalogue, x: Scale, start: float, step: float, class_: str, digits: int
) -> Figure:
    """Return the bar of one step, from `start` on; a thin line marks where the next one begins."""
    width, height, end = 220.0, 30.0, start + step
    left, right = sorted((x(start), x(end)))
    bar = rectangle(left, 7, max(right - left, THINNEST), height - 14, class_) if step else ""
    content = joined(
        line(x(0), 0, x(0), height, "zero"), bar, line(x(end), height / 2, x(end), height, "link")
    )
    title = t("predictions.running_title", start=signed(start, digits), end=signed(end, digits))
    return Figure(title, t("predictions.running"), width, height, content, "chart strip")
