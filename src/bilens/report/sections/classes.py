"""The cards of the classes: spectrum, eigenvectors, numbers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.spectra import spectrum_chart
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, quantity, scientific, signed_quantity
from bilens.report.raster import Painter
from bilens.report.sections.names import class_names
from bilens.report.svg import Figure

STRONGEST = 3  # inputs named under a strip


@dataclass(frozen=True)
class Tile:
    """One eigenvector as an image."""

    src: str
    alt: str
    eigenvalue: str
    share: str
    beyond: bool
    subspace: str  # a warning, or nothing
    strongest: str  # the inputs with the largest components, where an input is no image


@dataclass(frozen=True)
class ClassCard:
    """One class."""

    anchor: str
    name: str  # as given
    short: str  # for sentences
    rank: str
    beyond: str
    spectrum: Figure
    positive: list[Tile]
    negative: list[Tile]
    numbers: list[tuple[str, str]]


def class_cards(t: Catalogue, document: Document, painter: Painter) -> list[ClassCard]:
    """Return one card for each class."""
    names = class_names(document)
    return [
        class_card(t, reading, name, painter)
        for reading, name in zip(document["classes"], names, strict=True)
    ]


def class_card(t: Catalogue, reading: dict[str, Any], name: str, painter: Painter) -> ClassCard:
    """Return the card of one class."""
    chance = reading["effective_rank_null"]
    return ClassCard(
        anchor=f"class-{reading['index']}",
        name=reading["name"].strip() or name,
        short=name,
        rank=t(
            "classes.rank_short",
            rank=fixed(reading["effective_rank"], 1),
            low=fixed(chance["low"], 1),
            high=fixed(chance["high"], 1),
        ),
        beyond=t(
            "classes.beyond_short",
            positive=reading["significant_positive"],
            negative=reading["significant_negative"],
        ),
        spectrum=spectrum_chart(
            t,
            name,
            reading["eigenvalues"],
            (reading["lower_edge"], reading["upper_edge"]),
            (reading["significant_positive"], reading["significant_negative"]),
        ),
        positive=[tile(t, pair, reading, name, painter) for pair in reading["positive"]],
        negative=[tile(t, pair, reading, name, painter) for pair in reading["negative"]],
        numbers=numbers(t, reading),
    )


def tile(
    t: Catalogue, pair: dict[str, Any], reading: dict[str, Any], name: str, painter: Painter
) -> Tile:
    """Return one eigenvector of a class."""
    value, size = pair["eigenvalue"], pair["subspace_size"]
    return Tile(
        src=painter.vector(pair["vector"]),
        alt=t("classes.alt", name=name, value=signed_quantity(value)),
        eigenvalue=signed_quantity(value),
        share=t("classes.share", share=percent(pair["explained"])),
        beyond=value > reading["upper_edge"] or value < reading["lower_edge"],
        subspace=t("classes.subspace", count=size) if size > 1 else "",
        strongest=strongest(t, pair["vector"]) if painter.is_strip else "",
    )


def strongest(t: Catalogue, vector: list[float]) -> str:
    """Return the inputs with the largest components, counted from 1."""
    order = sorted(range(len(vector)), key=lambda index: -abs(vector[index]))[:STRONGEST]
    items = [
        t("classes.strongest_item", index=index + 1, value=signed_quantity(vector[index], 2))
        for index in order
    ]
    return t("classes.strongest", list=t("list.comma").join(items))


def numbers(t: Catalogue, reading: dict[str, Any]) -> list[tuple[str, str]]:
    """Return the numbers of a class that its card does not show as a picture."""
    chance = reading["effective_rank_null"]
    residual = scientific(reading["largest_residual"])
    if not reading["complete"]:
        residual = f"{residual} ({t('classes.unchecked')})"
    pairs = {
        "classes.significant": f"{reading['significant_positive']} / "
        f"{reading['significant_negative']}",
        "classes.edges": f"{signed_quantity(reading['upper_edge'])} / "
        f"{signed_quantity(reading['lower_edge'])}",
        "classes.p": f"{quantity(reading['p_upper'], 2)} / {quantity(reading['p_lower'], 2)}",
        "classes.rank": fixed(reading["effective_rank"], 2),
        "classes.rank_chance": f"{fixed(chance['median'], 2)} "
        f"({fixed(chance['low'], 2)}–{fixed(chance['high'], 2)})",
        "classes.norm": quantity(reading["frobenius_norm"]),
        "classes.linear": f"{quantity(reading['linear_norm'])} / "
        f"{signed_quantity(reading['constant'])}",
        "classes.residual": residual,
    }
    return [(t(key), value) for key, value in pairs.items()]
