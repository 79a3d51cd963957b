"""What may be wrong with the model: readings of overfitting, and places of triggers."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import trigger_place
from bilens.report.document import Document
from bilens.report.numbers import fixed, quantity, signed_quantity
from bilens.report.sections.names import class_names
from bilens.report.sections.rules import points
from bilens.report.svg import Figure

DRAWN = 3  # places


@dataclass(frozen=True)
class ReadingRow:
    """One reading of overfitting: its name, value, chance, and what it means."""

    name: str
    value: str
    chance: str
    meaning: str


@dataclass(frozen=True)
class PlaceRow:
    """The loudest place of one class."""

    name: str
    place: str
    score: str
    effect: str
    marked: bool
    picture: Figure | None


@dataclass(frozen=True)
class WarningsSection:
    """What the section prints."""

    overfitting: str
    readings: list[ReadingRow]
    triggers: str
    places: list[PlaceRow]


def warnings_section(t: Catalogue, document: Document) -> WarningsSection | None:
    """Return the section; None for a document from before there was one."""
    overfitting, triggers = document["overfitting"], document["triggers"]
    if overfitting is None or triggers is None:
        return None
    return WarningsSection(
        overfitting_sentence(t, overfitting),
        [reading_row(t, part) for part in overfitting["parts"]],
        triggers_sentence(t, triggers),
        place_rows(t, document, triggers),
    )


def overfitting_sentence(t: Catalogue, overfitting: dict[str, Any]) -> str:
    """Return the score with its threshold, or why there is none."""
    if overfitting["score"] is None:
        return t("overfitting.none", reason=reason(t, overfitting["reason"]))
    shares = {key: points(overfitting[key]) for key in ("score", "threshold")}
    return t("overfitting.score", **shares)


def reading_row(t: Catalogue, part: dict[str, Any]) -> ReadingRow:
    """Return one reading; one of an unknown name shows its name alone."""
    name, chance = part["name"], part["null_interval"]
    known = t.has(f"overfitting.{name}.term")
    return ReadingRow(
        t(f"overfitting.{name}.term") if known else name,
        quantity(part["value"]),
        t("overfitting.no_chance")
        if chance is None
        else f"{quantity(chance['median'])} ({quantity(chance['low'])}–{quantity(chance['high'])})",
        t(f"overfitting.{name}.text") if known else "",
    )


def triggers_sentence(t: Catalogue, triggers: dict[str, Any]) -> str:
    """Return the loudest place's score beside threshold and chance, or why there is none."""
    if triggers["score"] is None:
        return t("triggers.none", reason=reason(t, triggers["reason"]))
    chance = triggers["null_interval"]
    return t(
        "triggers.score",
        score=fixed(triggers["score"], 1),
        threshold=fixed(triggers["threshold"], 1),
        low=fixed(chance["low"], 1),
        high=fixed(chance["high"], 1),
    )


def place_rows(t: Catalogue, document: Document, triggers: dict[str, Any]) -> list[PlaceRow]:
    """Return the loudest place of each class, the first ones with a picture."""
    names, (height, width) = class_names(document), document["model"]["input_shape"]
    return [
        PlaceRow(
            names[window["target"]],
            t("triggers.place", **{key: str(window[key]) for key in ("row", "column", "side")}),
            fixed(window["score"], 1),
            signed_quantity(window["effect"]),
            window["score"] > triggers["threshold"],
            trigger_place(
                t,
                (window["row"], window["column"]),
                window["side"],
                (height, width),
                names[window["target"]],
            )
            if place < DRAWN
            else None,
        )
        for place, window in enumerate(triggers["patches"])
    ]


def reason(t: Catalogue, key: str) -> str:
    """Return why a score does not apply."""
    return t(f"warnings.{key}") if t.has(f"warnings.{key}") else key
