"""A latent as people see it: where it is active in text, and which tokens it is about."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import percent, quantity, signed_quantity
from bilens.report.token_text import latent_name, token_name, visible

SHADES = 8  # steps of the colour behind a token


@dataclass(frozen=True)
class Piece:
    """One token of a context."""

    text: str
    shade: int  # 0 … SHADES
    value: str
    peak: bool


@dataclass(frozen=True)
class Passage:
    """A stretch of text around a strong activation."""

    peak: str
    pieces: list[Piece]
    cut: bool  # whether the text began earlier


@dataclass(frozen=True)
class FeatureCard:
    """One latent."""

    anchor: str
    heading: str
    density: str
    passages: list[Passage]
    high: list[tuple[str, str]]
    low: list[tuple[str, str]]


def feature_card(t: Catalogue, item: dict[str, Any], anchor: str) -> FeatureCard:
    """Return one latent, drawn from its part of the document."""
    return FeatureCard(
        anchor=anchor,
        heading=latent_name(item),
        density=t(
            "trace.feature.density",
            share=percent(item["density"], 2),
            largest=quantity(item["largest"]),
        ),
        passages=[passage(context, item["largest"]) for context in item["contexts"]],
        high=token_rows(item["tokens"]["high"]),
        low=token_rows(item["tokens"]["low"]),
    )


def input_anchor(latent: int) -> str:
    """Return the anchor of the card of an input latent."""
    return f"input-{latent}"


def passage(context: dict[str, Any], largest: float) -> Passage:
    """Return a context as pieces with shades."""
    pieces = [
        Piece(
            visible(token),
            shade(value, largest),
            quantity(value, 2),
            place == context["peak"],
        )
        for place, (token, value) in enumerate(
            zip(context["tokens"], context["activations"], strict=True)
        )
    ]
    return Passage(quantity(context["activations"][context["peak"]]), pieces, context["start"] > 0)


def shade(value: float, largest: float) -> int:
    """Return how strongly a token is coloured: 0 where the latent is not active."""
    if value <= 0 or largest <= 0:
        return 0
    return max(1, min(SHADES, round(SHADES * value / largest)))


def token_rows(tokens: Sequence[dict[str, Any]]) -> list[tuple[str, str]]:
    """Return token and number."""
    return [(token_name(token["text"]), signed_quantity(token["value"], 2)) for token in tokens]
