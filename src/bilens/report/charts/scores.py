"""The scores of all classes for one input, as bars to both sides of zero."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import decimals, signed
from bilens.report.svg import Axis, drawing, element, fitted, label, line, rectangle, text_width

WIDTH, ROW, TOP, BOTTOM = 400.0, 24.0, 6.0, 6.0
NUMBER = 60.0  # room for a number beside a bar
MOST = 12  # bars; of more classes the highest are drawn
NAME_WIDTH = 96.0  # at most
SIZE = 12.0  # of the text


def score_chart(
    t: Catalogue, scores: Sequence[float], names: Sequence[str], predicted: int, truth: int | None
) -> Markup:
    """Return one bar for each class, in the order of the classes; answer and label are named."""
    digits = decimals(scores)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    shown = chosen(order, truth)
    short = {index: fitted(names[index], SIZE, NAME_WIDTH) for index in shown}
    left = 14.0 + max(text_width(name, SIZE) for name in short.values())
    values = [scores[index] for index in shown]
    x = Axis(
        min(0.0, *values), max(0.0, *values) or 1.0, left + NUMBER, WIDTH - NUMBER - tag_room(t)
    )
    second = order[min(1, len(order) - 1)]
    others = len(scores) - len(shown)
    height = TOP + ROW * (len(shown) + (others > 0)) + BOTTOM
    parts = [line(x(0), TOP, x(0), TOP + ROW * len(shown), "zero")]
    for row, index in enumerate(shown):
        tags = [t("predictions.predicted")] * (index == predicted)
        tags += [t("predictions.label")] * (index == truth)
        parts += bar(x, TOP + ROW * row, left, scores[index], digits, short[index], tags)
    if others > 0:
        rest = max(scores[index] for index in order if index not in shown)
        text = t("predictions.scores_others", count=others, value=signed(rest, digits))
        parts.append(label(left, height - BOTTOM - 8, text, "tick"))
    return drawing(
        WIDTH,
        height,
        t("predictions.scores"),
        t(
            "predictions.scores_text",
            winner=names[order[0]],
            score=signed(scores[order[0]], digits),
            second=names[second],
            second_score=signed(scores[second], digits),
        ),
        *parts,
        class_="chart scores",
    )


def tag_room(t: Catalogue) -> float:
    """Return the room that the words for answer and label need."""
    return 14 + text_width(f"{t('predictions.predicted')} · {t('predictions.label')}", SIZE)


def chosen(order: list[int], truth: int | None) -> list[int]:
    """Return which classes are drawn: all, or the highest and the label."""
    shown = order[:MOST]
    if truth is not None and truth not in shown:
        shown = [*shown[:-1], truth]
    return sorted(shown)


def bar(
    x: Axis, top: float, left: float, score: float, digits: int, name: str, tags: list[str]
) -> list[Markup]:
    """Return one class: name, bar, number, and what it is."""
    base, strong = top + ROW / 2 + 4, " strong" if tags else ""
    side, number = "pos" if score >= 0 else "neg", signed(score, digits)
    tag = element("tspan", " · ".join(tags), dx=8 if score >= 0 else 0, class_="tag")
    parts = [
        label(left, base, name, f"name{strong}", "end"),
        rectangle(x(0), top + 4, x(score) - x(0), ROW - 8, side + strong),
    ]
    if score >= 0:
        texts = (number, tag) if tags else (number,)
        return [*parts, element("text", *texts, x=x(score) + 6, y=base, class_=strong.strip())]
    parts.append(label(x(score) - 6, base, number, strong.strip(), "end"))
    return [*parts, element("text", tag, x=x(0) + 8, y=base)] if tags else parts
