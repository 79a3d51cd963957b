"""Predictions taken apart: what the model answered, and where in the input lies why."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.class_readings import ClassReadings, ClassScore, Contribution, Explanation
from bilens.records.common import ModelSummary
from bilens.report.charts.scores import leaders, running_scale, running_strip, score_chart
from bilens.report.markup import (
    Column,
    badge,
    boxed,
    element,
    facts,
    figure,
    heads,
    joined,
    paragraph,
    quiet,
    section,
    table,
    vector_image,
)
from bilens.report.plot import Scale, sign_class
from bilens.report.raster import Painter
from bilens.report.sections.overview import class_names, class_painter, met_at
from bilens.report.text import (
    Catalogue,
    adding_up,
    decimals,
    fixed,
    grouped,
    signed,
    signed_quantity,
)

KINDS: Final = ("typical", "narrow", "wrong", "asked")
BADGES: Final = {"right": "pass", "wrong": "fail", "unknown": "info"}
NAMED = 2  # eigenvectors named in a sentence


# what adds to a score: its name, eigenvalue and overlap, and its value
Part = tuple[tuple[Markup, str, str], float]


@dataclass(frozen=True)
class PredictionCard:
    """One prediction with the names, the catalogue and the painter that its parts use."""

    t: Catalogue
    item: Explanation
    names: list[str]
    model: ModelSummary
    painter: Painter

    @property
    def digits(self) -> int:
        """How many decimals the scores of this prediction are shown with."""
        return decimals(self.item.scores)

    def where(self, pair: Contribution, *, brief: bool = False) -> str:
        return met_at(self.t, self.model, self.item, pair, brief=brief)


def predictions(t: Catalogue, record: Audit, found: ClassReadings) -> Markup:
    """Return one card for each explanation; a remark if no data were given."""
    names, model, painter = class_names(record), record.model.one_layer, class_painter(record)
    cards = [
        prediction_card(PredictionCard(t, item, names, model, painter), position)
        for position, item in enumerate(found.explanations)
    ]
    lead = paragraph(t("predictions.lead")) if cards else boxed(t("predictions.none"))
    return section(t, "predictions", lead, *cards)


def prediction_card(reader: PredictionCard, position: int) -> Markup:
    t, item = reader.t, reader.item
    kind = item.kind if item.kind in KINDS else "other"
    outcome = outcome_of(item.predicted, item.label)
    strip = reader.painter.is_strip
    look = {"class_": "input strip" if strip else "input", "src": reader.painter.image(item.image)}
    alt = t("predictions.image_alt", index=grouped(item.index))
    image = element("img", **look, alt=alt, width=168, height=48 if strip else 168)
    title = t("predictions.number", index=grouped(item.index))
    number = element("figcaption", title, class_="quiet")
    chart = score_chart(t, item.scores, reader.names, item.predicted, item.label)
    case = (
        element("figure", image, number, class_="input"),
        answer(reader, outcome),
        figure(chart, t("predictions.scores"), "score-figure"),
    )
    return prediction_article(
        f"prediction-{position}",
        outcome,
        t(f"predictions.{kind}.heading"),
        quiet(t(f"predictions.{kind}.why", kind=item.kind)),
        element("div", *case, class_="case"),
        reasons(reader) if outcome == "wrong" else "",
        element("div", *sum_tables(reader), class_="sums"),
    )


def outcome_of(predicted: object, truth: object) -> str:
    """Return whether an answer is right, where that is known."""
    return "unknown" if truth is None else "right" if truth == predicted else "wrong"


def outcome_badge(t: Catalogue, outcome: str) -> Markup:
    return paragraph(badge(t, BADGES[outcome], t(f"predictions.{outcome}_word")))


def prediction_article(anchor: str, outcome: str, title: str, *content: str) -> Markup:
    """Return a card of one prediction, coloured by its outcome."""
    head = element("h3", title, id=f"{anchor}-heading")
    attributes = {
        "class_": f"card prediction {outcome}",
        "id": anchor,
        "aria_labelledby": f"{anchor}-heading",
    }
    return element("article", head, *content, **attributes)


def answer(reader: PredictionCard, outcome: str) -> Markup:
    """Return the model's answer, the right one, and by how much the answer leads."""
    t, item, names, digits = reader.t, reader.item, reader.names, reader.digits
    pairs = [(t("predictions.says"), names[item.predicted])]
    if item.label is not None:
        pairs.append((t("predictions.truth"), names[item.label]))
    scores = item.scores
    highest, next_one = sorted(scores, reverse=True)[:2]
    margin = fixed(highest - next_one, digits)
    lead = t("predictions.lead_over", **leaders(scores, names, digits), margin=margin)
    # Answers are large where they are a digit or two.
    large = facts(pairs, value_class="word" if any(len(name) > 3 for name in names) else None)
    found = [] if outcome == "wrong" else named_parts(reader, item.predicted, 1)
    why = t("predictions.because", winner=names[item.predicted], list=t.listing(found))
    parts = outcome_badge(t, outcome), paragraph(lead), paragraph(why if found else "")
    return element("div", large, *parts, class_="answer")


def reasons(reader: PredictionCard) -> Markup:
    """Return the parts of the input that led the model to the wrong answer."""
    t, item, names = reader.t, reader.item, reader.names
    assert item.label is not None, "it is known to be wrong"
    winner, label = names[item.predicted], names[item.label]
    favoured, against = named_parts(reader, item.predicted, 1), named_parts(reader, item.label, -1)
    sentences = []
    if favoured:
        listed = t.listing(favoured)
        sentences.append(t("predictions.wrong_why.favoured", winner=winner, list=listed))
    reached = signed(item.scores[item.label], reader.digits)
    sentences.append(t("predictions.wrong_why.missing", label=label, score=reached))
    if against:
        sentences.append(t("predictions.wrong_why.against", label=label, list=t.listing(against)))
    gap = t("sentence.gap")
    term = element("strong", t("predictions.wrong_why.term"))
    return paragraph(term, *(gap + sentence for sentence in sentences), class_="callout wrong")


def named_parts(reader: PredictionCard, class_index: int, sign: int) -> list[str]:
    """Return where what added most to a score lies (sign 1), or what took most from it (−1)."""
    parts = [
        part
        for score in reader.item.classes
        if score.index == class_index
        for part in score.contributions
        if sign * part.value > 0
    ]
    parts.sort(key=lambda part: -sign * part.value)
    return [
        reader.t(
            "predictions.part", place=reader.where(part), value=signed(part.value, reader.digits)
        )
        for part in parts[:NAMED]
    ]


def sum_tables(reader: PredictionCard) -> Iterator[Markup]:
    """Yield how classes come to their scores: answer and label first, all on one scale."""
    first = (reader.item.predicted, reader.item.label)
    scores = sorted(reader.item.classes, key=lambda score: score.index not in first)
    parts = [[*parts_of(reader, score)] for score in scores]
    x = running_scale([[value for _, value in of_class] for of_class in parts])
    for score, of_class in zip(scores, parts, strict=True):
        yield sum_table(reader, score, of_class, x)


def sum_table(reader: PredictionCard, score: ClassScore, parts: Sequence[Part], x: Scale) -> Markup:
    """Return one row for each part of a score, and the running sum beside it."""
    t, digits, rows, start = reader.t, reader.digits, [], 0.0
    rounded = adding_up([value for _, value in parts], digits)
    for (cells, value), shown in zip(parts, rounded, strict=True):
        strip = running_strip(t, x, start, value, sign_class(value), digits)
        rows.append((*cells, signed(shown, digits), strip))
        start += value
    total = signed(score.score, digits)
    caption = t("predictions.class_caption", name=reader.names[score.index], score=total)
    tags = (
        joined(" ", element("span", t(f"predictions.{key}"), class_="tag"))
        for key, index in (("predicted", reader.item.predicted), ("label", reader.item.label))
        if index == score.index
    )
    foot = element(
        "tr",
        element("th", t("predictions.score"), scope="row", colspan=3),
        element("td", total, class_="num"),
        element("td", running_strip(t, x, 0.0, score.score, "total", digits), class_="strip-cell"),
    )
    columns = heads(
        *t.each("predictions", ("part_heading", "eigenvalue", "overlap", "value")),
        Column(t("predictions.running"), numeric=False, class_="strip-cell"),
    )
    return table(
        t,
        joined(caption, *tags),
        columns,
        rows,
        class_="sum",
        label=caption,
        below=element("tfoot", foot),
    )


def parts_of(reader: PredictionCard, score: ClassScore) -> Iterator[Part]:
    """Yield the eigenvectors that are shown one by one, and the rest of the sum."""
    t, name = reader.t, reader.names[score.index]
    digits = decimals(pair.overlap for pair in score.contributions)
    for pair in score.contributions:
        alt = t("predictions.vector_alt", rank=pair.rank, name=name)
        image = vector_image(reader.painter, pair.vector, alt, side=44)
        where = reader.where(pair, brief=True)
        title = element("span", t("predictions.eigenvector", rank=pair.rank, place=where))
        drawn = element("span", image, title, class_="part")
        overlap = signed(pair.overlap, digits)
        yield (drawn, signed_quantity(pair.eigenvalue), overlap), pair.value
    others = reader.model.d_input - len(score.contributions)
    rest = []
    if others > 0:
        rest.append((t("predictions.rest", count=grouped(others)), score.rest))
    if score.linear == 0 and score.constant == 0:
        rest.append((t("predictions.no_terms"), 0.0))
    else:
        rest.append((t("predictions.linear"), score.linear))
        rest.append((t("predictions.constant"), score.constant))
    for words, value in rest:
        name = element("span", element("span", words, class_="words"), class_="part")
        yield (name, "", ""), value
