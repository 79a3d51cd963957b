"""What changed from a baseline: a table of layers, and a card for each that changed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, quantity, scientific, signed_quantity, whole
from bilens.report.sections.layer_directions import parts_text

NONE = "—"
Draw = Callable[[list[float]], str]


@dataclass(frozen=True)
class ChangeRow:
    """One row of the table: texts."""

    name: str
    note: str  # instead of numbers
    weights: str
    units: str
    change: str
    linear: str
    frobenius: str
    gaussian: str
    outputs: str
    inputs: str


@dataclass(frozen=True)
class TriggerRow:
    """One input direction that a change answers to."""

    eigenvalue: str
    explained: str
    residual: str
    inputs: str
    picture: str  # a data URI; empty where inputs are not drawn


@dataclass(frozen=True)
class ChangeCard:
    """Where the change of one layer went."""

    name: str
    lead: str
    outputs: str
    triggers: list[TriggerRow]


@dataclass(frozen=True)
class DifferenceSection:
    """All that changed."""

    lead: str
    rows: list[ChangeRow]
    cards: list[ChangeCard]
    drawn: bool


def difference_section(
    t: Catalogue, document: Document, draw: Draw | None = None
) -> DifferenceSection | None:
    """Return what changed; None where there was no baseline.

    Args:
        t: the catalogue.
        document: a checked audit, of one layer or of many.
        draw: returns the picture of an input direction.
    """
    difference = document.get("difference")
    if difference is None:
        return None
    layers = difference["layers"]
    source = difference["baseline"]["path"] or t("layers.difference.unnamed")
    changed = sum(not layer["identical"] for layer in layers)
    numbers = {"changed": whole(changed), "of": whole(len(layers)), "baseline": source}
    return DifferenceSection(
        t("layers.difference.lead", **numbers),
        [change_row(t, layer) for layer in layers],
        [change_card(t, document, layer, draw) for layer in layers if layer["triggers"]],
        draw is not None,
    )


def class_names_of(document: Document) -> list[str] | None:
    """Return the names of the outputs, where they are classes."""
    names: list[str] | None = document["model"].get("output_names")
    return names


def change_row(t: Catalogue, layer: dict[str, Any]) -> ChangeRow:
    """Return the row of a layer."""
    note = ""
    if layer["identical"]:
        note = t("layers.difference.identical")
    elif layer["refused"] is not None:
        note = t("layers.difference.refused", reason=layer["refused"])
    return ChangeRow(
        name=layer["name"],
        note=note,
        weights=share(layer["weight_change"]),
        units=NONE if layer["changed_units"] is None else whole(layer["changed_units"]),
        change=share(layer["change"]),
        linear=share(layer["linear_change"]),
        frobenius=cosine(layer["frobenius"]),
        gaussian=cosine(layer["gaussian"]),
        outputs=mode(layer["outputs"]),
        inputs=mode(layer["inputs"]),
    )


def share(value: float | None) -> str:
    """Return a relative change."""
    return NONE if value is None else f"{quantity(100 * value, 3)}%"


def cosine(value: float | None) -> str:
    """Return a similarity."""
    return NONE if value is None else fixed(value, 5)


def mode(found: dict[str, Any] | None) -> str:
    """Return an effective rank beside that by chance."""
    if found is None:
        return NONE
    chance = found["effective_rank_null"]
    return f"{fixed(found['effective_rank'], 1)} ({NONE if chance is None else fixed(chance, 1)})"


def change_card(
    t: Catalogue, document: Document, layer: dict[str, Any], draw: Draw | None
) -> ChangeCard:
    """Return the card of a layer whose quadratic part changed."""
    outputs, inputs = layer["outputs"], layer["inputs"]
    lead = t(
        "layers.difference.card",
        outputs=whole(outputs["directions_90"]),
        inputs=whole(inputs["directions_90"]),
        share=percent(outputs["top_share"]),
        input_share=percent(inputs["top_share"]),
    )
    names = class_names_of(document)
    rows = [trigger_row(trigger, draw) for trigger in layer["triggers"]]
    return ChangeCard(layer["name"], lead, parts_text(layer["output_parts"], names), rows)


def trigger_row(trigger: dict[str, Any], draw: Draw | None) -> TriggerRow:
    """Return one input direction."""
    picture = ""
    if draw is not None and trigger["vector"] is not None:
        picture = draw(trigger["vector"])
    return TriggerRow(
        signed_quantity(trigger["eigenvalue"]),
        percent(trigger["explained"]),
        scientific(trigger["residual"]),
        parts_text(trigger["parts"]),
        picture,
    )
