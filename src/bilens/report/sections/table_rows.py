"""Rows of a table, taken apart: what each column adds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.scores import bar_chart, score_chart
from bilens.report.document import Document
from bilens.report.numbers import quantity, signed_quantity, whole
from bilens.report.sections.table_columns import (
    MOST,
    column_names,
    output_names,
    pair_name,
    ranked,
    value_label,
)
from bilens.report.svg import Figure

ROW_KINDS = ("typical", "narrow", "wrong", "farthest", "first")
OUTCOMES = {"right": ("pass", "✓"), "wrong": ("fail", "✗"), "unknown": ("info", "i")}


@dataclass(frozen=True)
class Part:
    """One score of a row, taken apart by columns."""

    caption: str
    sum: str
    chart: Figure
    pairs: str  # the strongest ones, in words


@dataclass(frozen=True)
class RowCard:
    """One row and its prediction."""

    anchor: str
    outcome: str
    badge: str
    icon: str
    word: str
    heading: str
    number: str
    predicted: str
    truth: str  # or nothing, where it is not known
    chart: Figure | None
    parts: list[Part]


def row_cards(t: Catalogue, document: Document) -> list[RowCard]:
    """Return one card for each row."""
    return [row_card(t, document, row, place) for place, row in enumerate(document["rows"])]


def row_card(t: Catalogue, document: Document, row: dict[str, Any], place: int) -> RowCard:
    """Return the card of a row."""
    names = output_names(document)
    is_class = document["model"]["task"] == "classification"
    label, target, predicted = row["label"], row["target"], row["predicted"]
    outcome = "unknown" if label is None else "right" if label == predicted else "wrong"
    badge, icon = OUTCOMES[outcome]
    kind = row["kind"] if row["kind"] in ROW_KINDS else "first"
    truth = "" if target is None else quantity(target, 4)
    return RowCard(
        anchor=f"row-{place}",
        outcome=outcome,
        badge=badge if is_class else "",
        icon=icon,
        word=t(f"predictions.{outcome}_word"),
        heading=t(f"table.rows.{kind}{'' if is_class else '_number'}"),
        number=t("table.rows.number", index=whole(row["index"])),
        predicted=names[predicted] if is_class else quantity(row["scores"][0], 4),
        truth=names[label] if label is not None else truth,
        chart=score_chart(t, row["scores"], names, predicted, label) if is_class else None,
        parts=[part_of(t, document, row, part) for part in row["attributions"]],
    )


def part_of(t: Catalogue, document: Document, row: dict[str, Any], part: dict[str, Any]) -> Part:
    """Return one score of a row."""
    names, columns = output_names(document), column_names(document)
    rival = "" if part["rival"] is None else names[part["rival"]]
    key = part["kind"] if part["kind"] in ("class", "contrast") else "output"
    caption = t(f"table.rows.{key}", name=names[part["output"]], rival=rival)
    named = [
        (value_label(name, value), added)
        for name, value, added in zip(columns, row["inputs"], part["values"], strict=True)
    ]
    shown = ranked(named)
    shown = shown if len(shown) <= MOST + 1 else shown[:MOST]
    rest = sum(part["values"]) - sum(value for _, value in shown)
    if len(named) > len(shown):
        shown.append((t("table.rows.others", count=whole(len(named) - len(shown))), rest))
    text = t("table.columns.text", name=shown[0][0], value=signed_quantity(shown[0][1]))
    pairs = [
        f"{pair_name(columns, pair)} ({signed_quantity(pair['value'])})"
        for pair in part["pairs"][:3]
    ]
    return Part(
        caption=caption,
        sum=t(
            "table.rows.sum",
            score=signed_quantity(part["score"], 4),
            baseline=signed_quantity(part["score_at_baseline"], 4),
            change=signed_quantity(part["score"] - part["score_at_baseline"], 4),
        ),
        chart=bar_chart(caption, text, shown),
        pairs=t("table.rows.pairs", pairs=t.listing(pairs)) if pairs else "",
    )
