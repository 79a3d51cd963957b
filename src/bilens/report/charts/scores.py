"""Scores as bars to both sides of zero, and a score as the running sum of its parts."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import accumulate

from markupsafe import Markup

from bilens.report.markup import Figure, element, joined, label, line, rectangle
from bilens.report.plot import LETTERS, Scale, sign_class
from bilens.report.text import Catalogue, decimals, fitted, signed, signed_quantity, text_width

MOST = 12  # bars; of more classes the highest are drawn
THINNEST = 1.5  # step of a running sum
ROW, PAD = 24.0, 6.0  # height of a bar with its gap; above the first and below the last
NAME = 13.0  # letters of names on a narrow page
SHORT, LONG = 190.0, 280.0  # room for names beside bars
NUMBER = 76.0  # room for the number at the end of a bar
Named = Sequence[tuple[str, float]]


@dataclass(frozen=True)
class Bar:
    name: str
    value: float
    text: str  # the number as it is written
    tags: str = ""  # what it is, beside the number
    strong: bool = True  # in full colour


def bar_rows(
    about: tuple[str, str],
    bars: Sequence[Bar],
    every: Named,
    *,
    width: float,
    name_width: float,
    tag_width: float = 0.0,
    footnote: str = "",
) -> Figure:
    """Return one bar for each name, in the order given, with room for `every` name and value.

    `about` is title and description; `tag_width` is the room for tags on the right.
    """
    known = [0.0, *(value for _, value in every)]
    low, high = min(known), max(known) or (1.0 if min(known) == 0 else 0.0)
    names = (fitted(name, NAME, name_width) for name, _ in every)
    left = 14 + max(text_width(name, NAME) for name in names)  # where names end
    texts = [(bar.text, bar.value) for bar in bars]
    texts += [(signed_quantity(value), value) for _, value in every]
    room = {
        side: max([NUMBER, *(8 + text_width(one, LETTERS) for one, x in texts if (x < 0) == side)])
        for side in (True, False)
    }
    start = left + (room[True] if low < 0 else 8.0)
    scale = Scale(low, high, start, width - tag_width - (room[False] if high > 0 else 8.0))
    zero, length = scale(0), ROW * len(bars)
    parts = [line(zero, PAD, zero, PAD + length, "zero")]
    for position, bar in enumerate(bars):
        top = PAD + ROW * position
        at = {"x": left, "y": top + ROW / 2 + 4}
        look = {"class_": "name strong" if bar.tags else "name", "text_anchor": "end"}
        short = fitted(bar.name, NAME, name_width)
        name = element("text", element("title", bar.name), short, **at, **look)
        parts.append(joined(name, *bar_mark(bar, scale, top)))
    height = 2 * PAD + length
    if footnote:
        height += ROW
        parts.append(label(left, height - PAD - 8, footnote, "tick"))
    title, description = about
    return Figure(title, description, width, height, joined(*parts), "chart scores")


def bar_mark(bar: Bar, scale: Scale, top: float) -> list[Markup]:
    """Return one bar with its number and its tags."""
    base, zero, end = top + ROW / 2 + 4, scale(0), scale(bar.value)
    weight = "strong" if bar.tags else ""
    colour = sign_class(bar.value) + (" strong" if bar.strong else "")
    parts = [rectangle(zero, top + 4.5, end - zero, ROW - 9, colour)]
    if bar.value < 0:
        parts.append(label(end - 6, base, bar.text, weight, "end"))
        if bar.tags:
            parts.append(label(zero + 8, base, bar.tags, "tag"))
    else:
        tag = element("tspan", bar.tags, dx=8, class_="tag") if bar.tags else ""
        parts.append(element("text", bar.text, tag, x=end + 6, y=base, class_=weight or None))
    return parts


def bar_chart(
    title: str, description: str, rows: Named, beside: Named = (), digits: int | None = None
) -> Figure:
    """Return one bar for each name, in the order given, on the scale of the charts beside it.

    It is as wide as the names ask for.
    """
    bars = [
        Bar(name, value, signed_quantity(value) if digits is None else signed(value, digits))
        for name, value in rows
    ]
    every = [*rows, *beside]
    room = min(max(SHORT, *(text_width(name, NAME) for name, _ in every)), LONG)
    return bar_rows((title, description), bars, every, width=250 + room, name_width=room)


def score_chart(
    t: Catalogue, scores: Sequence[float], names: Sequence[str], predicted: int, truth: int | None
) -> Figure:
    """Return a bar for each class, or for the highest and the label; answer and label are named."""
    digits = decimals(scores)
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    shown = order[:MOST]
    if truth is not None and truth not in shown:
        shown = [*shown[:-1], truth]
    words = (t("predictions.predicted"), t("predictions.label"))
    bars = []
    for index in sorted(shown):
        tags = [word for word, of in zip(words, (predicted, truth), strict=True) if of == index]
        text = signed(scores[index], digits)
        bars.append(Bar(names[index], scores[index], text, " · ".join(tags), bool(tags)))
    footnote = ""
    if len(scores) > len(shown):
        highest = max(scores[index] for index in order if index not in shown)
        others = len(scores) - len(shown)
        footnote = t("predictions.scores_others", count=others, value=signed(highest, digits, 1))
    text = t("predictions.scores_text", **leaders(scores, names, digits))
    return bar_rows(
        (t("predictions.scores"), text),
        bars,
        [(bar.name, bar.value) for bar in bars],
        width=400,
        name_width=96,
        tag_width=14 + text_width(" · ".join(words), LETTERS),
        footnote=footnote,
    )


def leaders(scores: Sequence[float], names: Sequence[str], digits: int) -> dict[str, str]:
    """Return the two highest scores and their names, as sentences have them."""
    order = sorted(range(len(scores)), key=lambda index: -scores[index])
    first, second = order[0], order[min(1, len(order) - 1)]
    ends = {"winner": names[first], "score": signed(scores[first], digits)}
    return {**ends, "second": names[second], "second_score": signed(scores[second], digits)}


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
