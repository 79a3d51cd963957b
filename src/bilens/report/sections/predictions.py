"""Predictions taken apart: what the model answered, and which eigenvectors made it say so."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bilens.report.catalogue import Catalogue
from bilens.report.charts.scores import score_chart
from bilens.report.document import Document
from bilens.report.numbers import fixed, signed, whole
from bilens.report.raster import Painter
from bilens.report.sections.names import class_names
from bilens.report.sections.sum_table import SumReader, SumTable
from bilens.report.svg import Figure

KINDS: Final = ("typical", "narrow", "wrong", "asked")
OUTCOMES: Final = {"right": ("pass", "✓"), "wrong": ("fail", "✗"), "unknown": ("info", "i")}
NAMED = 2  # eigenvectors named in a sentence


@dataclass(frozen=True)
class PredictionCard:
    """One input and its prediction."""

    anchor: str
    outcome: str  # "right", "wrong" or "unknown"
    badge: str
    icon: str
    word: str
    heading: str
    why: str
    number: str
    src: str
    alt: str
    predicted: str
    truth: str  # or nothing, where it is not known
    wordy: bool  # whether the names of the classes are more than a digit or two
    comparison: str
    reasons: list[str]  # why it was wrong
    chart: Figure
    tables: list[SumTable]


def prediction_cards(t: Catalogue, document: Document, painter: Painter) -> list[PredictionCard]:
    """Return one card for each explanation."""
    names, num_inputs = class_names(document), document["model"]["d_input"]
    return [
        prediction_card(SumReader(t, item, names, num_inputs, painter), f"prediction-{position}")
        for position, item in enumerate(document["explanations"])
    ]


def prediction_card(reader: SumReader, anchor: str) -> PredictionCard:
    """Return the card of one explanation."""
    t, item, names = reader.t, reader.item, reader.names
    kind = item["kind"] if item["kind"] in KINDS else "other"
    truth, predicted = item["label"], item["predicted"]
    outcome = "unknown" if truth is None else "right" if truth == predicted else "wrong"
    badge, icon = OUTCOMES[outcome]
    return PredictionCard(
        anchor=anchor,
        outcome=outcome,
        badge=badge,
        icon=icon,
        word=t(f"predictions.{outcome}_word"),
        heading=t(f"predictions.{kind}.heading"),
        why=t(f"predictions.{kind}.why", kind=item["kind"]),
        number=t("predictions.number", index=whole(item["index"])),
        src=reader.painter.image(item["image"]),
        alt=t("predictions.image_alt", index=whole(item["index"])),
        predicted=names[predicted],
        truth="" if truth is None else names[truth],
        wordy=any(len(name) > 3 for name in names),
        comparison=comparison(reader),
        reasons=reasons(reader) if outcome == "wrong" else [],
        chart=score_chart(t, item["scores"], names, predicted, truth),
        tables=reader.tables(),
    )


def comparison(reader: SumReader) -> str:
    """Return by how much the answer leads."""
    scores, names, digits = reader.item["scores"], reader.names, reader.digits
    first, second = sorted(range(len(scores)), key=lambda index: -scores[index])[:2]
    return reader.t(
        "predictions.lead_over",
        winner=names[first],
        score=signed(scores[first], digits),
        second=names[second],
        second_score=signed(scores[second], digits),
        margin=fixed(scores[first] - scores[second], digits),
    )


def reasons(reader: SumReader) -> list[str]:
    """Return which eigenvectors made the model give the wrong answer."""
    t, item, names = reader.t, reader.item, reader.names
    winner, label = names[item["predicted"]], names[item["label"]]
    favoured = named_parts(reader, item["predicted"], 1)
    against = named_parts(reader, item["label"], -1)
    reached = signed(item["scores"][item["label"]], reader.digits)
    sentences = []
    if favoured:
        sentences.append(
            t("predictions.wrong_why.favoured", winner=winner, list=t.listing(favoured))
        )
    sentences.append(t("predictions.wrong_why.missing", label=label, score=reached))
    if against:
        sentences.append(t("predictions.wrong_why.against", label=label, list=t.listing(against)))
    return sentences


def named_parts(reader: SumReader, class_index: int, sign: int) -> list[str]:
    """Return the eigenvectors that added most to a score (sign 1), or took most from it (−1)."""
    parts: list[dict[str, Any]] = [
        part
        for score in reader.item["classes"]
        if score["index"] == class_index
        for part in score["contributions"]
        if sign * part["value"] > 0
    ]
    parts.sort(key=lambda part: -sign * part["value"])
    return [
        reader.t("predictions.part", rank=part["rank"], value=signed(part["value"], reader.digits))
        for part in parts[:NAMED]
    ]
