"""Predictions taken apart: which eigenvectors spoke for and against a class, and how much."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.charts.running_sum import running_axis, running_strip
from bilens.report.charts.scores import score_chart
from bilens.report.document import Document
from bilens.report.numbers import signed, signed_quantity, whole
from bilens.report.pictures import Painter
from bilens.report.sections.names import class_names

KINDS = ("typical", "narrow", "wrong", "asked")
NAMED = 2  # eigenvectors named in a sentence


@dataclass(frozen=True)
class SumRow:
    """One part of a score."""

    name: str
    src: str  # the image of an eigenvector, or nothing
    alt: str
    eigenvalue: str
    overlap: str
    value: str
    strip: Markup


@dataclass(frozen=True)
class SumTable:
    """How one class comes to its score."""

    caption: str
    role: str  # "answer", "label" or nothing
    rows: list[SumRow]
    score: str
    strip: Markup


@dataclass(frozen=True)
class PredictionCard:
    """One input and its prediction."""

    anchor: str
    outcome: str  # "right", "wrong" or "unknown"
    outcome_word: str
    heading: str
    why: str
    number: str
    src: str
    alt: str
    predicted: str
    truth: str  # or nothing, where it is not known
    comparison: str
    reasons: list[str]  # why it was wrong
    chart: Markup
    tables: list[SumTable]


def prediction_cards(t: Catalogue, document: Document, painter: Painter) -> list[PredictionCard]:
    """Return one card for each explanation."""
    names, width = class_names(document), document["model"]["d_input"]
    return [
        prediction_card(t, item, names, width, painter, position)
        for position, item in enumerate(document["explanations"])
    ]


def prediction_card(
    t: Catalogue,
    item: dict[str, Any],
    names: list[str],
    width: int,
    painter: Painter,
    position: int,
) -> PredictionCard:
    """Return the card of one explanation."""
    kind = item["kind"] if item["kind"] in KINDS else "other"
    truth, predicted = item["label"], item["predicted"]
    outcome = "unknown" if truth is None else "right" if truth == predicted else "wrong"
    return PredictionCard(
        anchor=f"prediction-{position}",
        outcome=outcome,
        outcome_word=t(f"predictions.{outcome}_word"),
        heading=t(f"predictions.{kind}.heading"),
        why=t(f"predictions.{kind}.why", kind=item["kind"]),
        number=t("predictions.number", index=whole(item["index"])),
        src=painter.image(item["image"]),
        alt=t("predictions.image_alt", index=whole(item["index"])),
        predicted=names[predicted],
        truth="" if truth is None else names[truth],
        comparison=comparison(t, item, names),
        reasons=reasons(t, item, names) if outcome == "wrong" else [],
        chart=score_chart(t, item["scores"], names, predicted, truth),
        tables=[sum_table(t, score, item, names, width, painter) for score in item["classes"]],
    )


def comparison(t: Catalogue, item: dict[str, Any], names: list[str]) -> str:
    """Return by how much the answer leads."""
    scores = item["scores"]
    first, second = sorted(range(len(scores)), key=lambda index: -scores[index])[:2]
    return t(
        "predictions.lead_over",
        winner=names[first],
        score=signed(scores[first]),
        second=names[second],
        second_score=signed(scores[second]),
        margin=signed(scores[first] - scores[second]).lstrip("+"),
    )


def reasons(t: Catalogue, item: dict[str, Any], names: list[str]) -> list[str]:
    """Return which eigenvectors made the model give the wrong answer."""
    by_class = {score["index"]: score for score in item["classes"]}
    sentences = []
    winner, truth = by_class.get(item["predicted"]), by_class.get(item["label"])
    if winner is not None:
        parts = named_parts(t, winner, 1)
        if parts:
            sentences.append(
                t(
                    "predictions.wrong_why.favoured",
                    winner=names[winner["index"]],
                    list=t.listing(parts),
                )
            )
    label, score = names[item["label"]], item["scores"][item["label"]]
    sentences.append(t("predictions.wrong_why.missing", label=label, score=signed(score)))
    if truth is not None:
        parts = named_parts(t, truth, -1)
        if parts:
            sentences.append(
                t("predictions.wrong_why.against", label=label, list=t.listing(parts))
            )
    return sentences


def named_parts(t: Catalogue, score: dict[str, Any], sign: int) -> list[str]:
    """Return the eigenvectors that added most to a score (sign 1), or took most from it (−1)."""
    ordered = sorted(score["contributions"], key=lambda part: -sign * part["value"])
    return [
        t("predictions.part", rank=part["rank"], value=signed(part["value"]))
        for part in ordered[:NAMED]
        if sign * part["value"] > 0
    ]


def sum_table(
    t: Catalogue,
    score: dict[str, Any],
    item: dict[str, Any],
    names: list[str],
    width: int,
    painter: Painter,
) -> SumTable:
    """Return the parts of one score, with the running sum beside them."""
    name = names[score["index"]]
    parts = [
        (
            t("predictions.eigenvector", rank=part["rank"]),
            painter.eigenvector(part["vector"]),
            t("predictions.vector_alt", rank=part["rank"], name=name),
            signed_quantity(part["eigenvalue"]),
            signed(part["overlap"]),
            part["value"],
        )
        for part in score["contributions"]
    ]
    others = width - len(parts)
    parts += [(text, "", "", "", "", value) for text, value in other_parts(t, score, others)]
    x, start, rows = running_axis([part[-1] for part in parts]), 0.0, []
    for *texts, value in parts:
        strip = running_strip(t, x, start, value, "pos" if value >= 0 else "neg")
        rows.append(SumRow(*texts, signed(value), strip))
        start += value
    role = "answer" if score["index"] == item["predicted"] else ""
    if score["index"] == item["label"]:
        role = "both" if role else "label"
    return SumTable(
        caption=t("predictions.class_caption", name=name, score=signed(score["score"])),
        role=role,
        rows=rows,
        score=signed(score["score"]),
        strip=running_strip(t, x, 0.0, score["score"], "total"),
    )


def other_parts(t: Catalogue, score: dict[str, Any], others: int) -> list[tuple[str, float]]:
    """Return what is not shown one by one: the other eigenvectors, linear term, constant."""
    parts = [(t("predictions.rest", count=whole(others)), score["rest"])] if others > 0 else []
    if score["linear"] == 0 and score["constant"] == 0:
        return [*parts, (t("predictions.no_terms"), 0.0)]
    return [
        *parts,
        (t("predictions.linear"), score["linear"]),
        (t("predictions.constant"), score["constant"]),
    ]
