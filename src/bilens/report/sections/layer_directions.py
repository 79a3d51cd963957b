"""What each layer writes most, and what it answers to there."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, scientific, signed, signed_quantity


@dataclass(frozen=True)
class PairRow:
    """One eigenpair, in words."""

    eigenvalue: str
    explained: str
    residual: str
    inputs: str


@dataclass(frozen=True)
class DirectionCard:
    """The leading output direction of one layer."""

    name: str
    lead: str
    outputs: str
    pairs: list[PairRow]


def direction_cards(t: Catalogue, document: Document) -> list[DirectionCard]:
    """Return a card for each layer whose map is read."""
    return [
        direction_card(t, layer) for layer in document["layers"] if layer["outputs"] is not None
    ]


def direction_card(t: Catalogue, layer: dict[str, Any]) -> DirectionCard:
    """Return the card of one layer."""
    outputs = layer["outputs"]
    share, rank = outputs["top_share_null"], outputs["leading_rank_null"]
    lead = t(
        "layers.directions.card",
        share=percent(outputs["top_share"]),
        low=percent(share["low"]),
        high=percent(share["high"]),
        rank=fixed(outputs["leading_rank"], 1),
        rank_low=fixed(rank["low"], 1),
        rank_high=fixed(rank["high"], 1),
        of=layer["d_input"],
    )
    return DirectionCard(
        layer["name"], lead, parts_text(outputs["output_parts"]), pair_rows(outputs["pairs"])
    )


def pair_rows(pairs: list[dict[str, Any]]) -> list[PairRow]:
    """Return eigenpairs as rows."""
    return [
        PairRow(
            signed_quantity(pair["eigenvalue"]),
            percent(pair["explained"]),
            scientific(pair["residual"]),
            parts_text(pair["parts"]),
        )
        for pair in pairs
    ]


def parts_text(parts: list[dict[str, Any]], names: list[str] | None = None) -> str:
    """Return coordinates, by number or name, with their components."""
    return ", ".join(
        f"{part['index'] if names is None else names[part['index']]} ({signed(part['component'])})"
        for part in parts
    )
