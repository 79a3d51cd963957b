"""What changed from a baseline: a table of layers, and a card for each that changed."""

from __future__ import annotations

from collections.abc import Sequence

from markupsafe import Markup

from bilens.records.layer_audit import (
    ChangeDirection,
    Component,
    Difference,
    LayerDifference,
    LeadingPair,
    ModeChange,
)
from bilens.report.blocks import (
    Column,
    Content,
    Row,
    card,
    heading,
    paragraph,
    quiet,
    section,
    table,
    vector_image,
)
from bilens.report.catalogue import Catalogue
from bilens.report.numbers import (
    fixed,
    percent,
    quantity,
    scientific,
    signed,
    signed_quantity,
    whole,
)
from bilens.report.raster import Painter

NONE = "—"
CHANGES = ("weights", "units", "change", "linear", "frobenius", "gaussian", "outputs", "inputs")
PAIR = ("eigenvalue", "explained", "residual")


def difference(
    t: Catalogue,
    found: Difference | None,
    names: Sequence[str] | None = None,
    painter: Painter | None = None,
) -> Markup:
    """Return what changed; nothing where there was no baseline."""
    if found is None:
        return Markup()
    columns = [
        Column(t("layers.table.layer"), numeric=False),
        *(Column(t(f"layers.difference.{key}")) for key in CHANGES),
    ]
    rows = []
    for layer in found.layers:
        said = note(t, layer)
        cells = (layer.name, said) if said else (layer.name, *changes(layer))
        rows.append(Row(cells, spans=bool(said)))
    changed = [layer for layer in found.layers if layer.triggers]
    cards = [
        change_card(t, layer, names, painter, is_open=layer is changed[0]) for layer in changed
    ]
    if cards:
        lead = paragraph(t("layers.difference.triggers_lead"))
        cards = [heading(t("layers.difference.triggers")), lead, *cards]
    return section(
        "difference",
        t("layers.difference.heading"),
        paragraph(change_lead(t, found), " ", t("layers.difference.how")),
        table(t, t("layers.difference.caption"), columns, rows, class_="layers"),
        *cards,
    )


def change_lead(t: Catalogue, found: Difference) -> str:
    """Return how many layers changed from which baseline."""
    return t(
        "layers.difference.lead",
        changed=whole(sum(not layer.identical for layer in found.layers)),
        of=whole(len(found.layers)),
        baseline=found.baseline.path or t("layers.difference.unnamed"),
    )


def note(t: Catalogue, layer: LayerDifference) -> str:
    """Return what stands in place of the numbers of a layer, if anything."""
    if layer.identical:
        return t("layers.difference.identical")
    if layer.refused is not None:
        return t("layers.difference.refused", reason=layer.refused)
    return ""


def changes(layer: LayerDifference) -> tuple[str, ...]:
    """Return the numbers of a layer, in the order of `CHANGES`."""
    return (
        share(layer.weight_change),
        NONE if layer.changed_units is None else whole(layer.changed_units),
        share(layer.change),
        share(layer.linear_change),
        cosine(layer.frobenius),
        cosine(layer.gaussian),
        mode(layer.outputs),
        mode(layer.inputs),
    )


def share(value: float | None) -> str:
    """Return a relative change."""
    return NONE if value is None else f"{quantity(100 * value, 3)}%"


def cosine(value: float | None) -> str:
    """Return a similarity."""
    return NONE if value is None else fixed(value, 5)


def mode(found: ModeChange | None) -> str:
    """Return an effective rank beside that of noise."""
    if found is None:
        return NONE
    null = found.effective_rank_null
    return f"{fixed(found.effective_rank, 1)} ({NONE if null is None else fixed(null, 1)})"


def change_card(
    t: Catalogue,
    layer: LayerDifference,
    names: Sequence[str] | None,
    painter: Painter | None,
    *,
    is_open: bool,
) -> Markup:
    """Return the card of a layer whose quadratic part changed."""
    outputs, inputs = layer.outputs, layer.inputs
    assert outputs is not None, "it has directions"
    assert inputs is not None, "it has directions"
    lead = t(
        "layers.difference.card",
        outputs=whole(outputs.directions_90),
        inputs=whole(inputs.directions_90),
        share=percent(outputs.top_share),
        input_share=percent(inputs.top_share),
    )
    columns = [
        *(Column(t(f"layers.directions.{key}")) for key in PAIR),
        Column(t("layers.directions.inputs"), numeric=False),
    ]
    rows: list[tuple[Content, ...]] = [pair_cells(one) for one in layer.triggers]
    if painter is not None:
        columns.insert(0, Column(t("layers.difference.pattern"), numeric=False))
        rows = [
            (pattern(t, one, painter), *cells)
            for one, cells in zip(layer.triggers, rows, strict=True)
        ]
    label = t("layers.directions.caption", name=layer.name)
    return card(
        [layer.name],
        paragraph(lead),
        quiet(t("layers.directions.outputs", parts=parts_text(layer.output_parts, names))),
        table(t, "", columns, rows, named=(), class_="pairs", label=label),
        is_open=is_open,
        level=4,
    )


def pattern(t: Catalogue, one: ChangeDirection, painter: Painter) -> Markup:
    """Return the picture of an input direction."""
    if one.vector is None:
        return Markup()
    alt = t("layers.difference.picture", value=signed_quantity(one.eigenvalue))
    return vector_image(painter, one.vector, alt)


def pair_cells(one: ChangeDirection | LeadingPair) -> tuple[str, str, str, str]:
    """Return an eigenpair in words."""
    return (
        signed_quantity(one.eigenvalue),
        percent(one.explained),
        scientific(one.residual),
        parts_text(one.parts),
    )


def parts_text(parts: Sequence[Component], names: Sequence[str] | None = None) -> str:
    """Return coordinates, by number or name, with their components."""
    return ", ".join(
        f"{part.index if names is None else names[part.index]} ({signed(part.component)})"
        for part in parts
    )
