"""The page of many layers: three small charts, a table, and what each layer writes most."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bilens.records.common import NullInterval
from bilens.records.layer_audit import LayerAudit, LayerReading, Units
from bilens.report.blocks import (
    Column as TableColumn,
    Content,
    Row,
    card,
    drawings,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.catalogue import Catalogue
from bilens.report.charts.spectra import Column, layer_columns
from bilens.report.numbers import fixed, percent, quantity, whole
from bilens.report.page import Page
from bilens.report.sections.difference import PAIR, difference, pair_cells, parts_text
from bilens.report.sections.overview import test_data
from bilens.report.sections.verdict import verdict
from bilens.report.svg import Figure, element, joined

NONE = "—"
NUMBERS = (
    "r2",
    "linear",
    "norm",
    "rank",
    "null",
    "directions",
    "share",
    "units",
    "input",
    "stable",
)
LIMITS = ("layer", "fit", "norm", "null", "meaning", "triggers")


def layer_audit_page(t: Catalogue, record: LayerAudit) -> Page:
    """Return the page of the audit of many layers."""
    samples = whole(record.null_samples)
    return Page(
        keys="layers.page",
        footer="layers.page.footer",
        title=record.source.path or record.model.kind,
        count=len(record.layers),
        facts=list(layer_facts(t, record)),
        parts=(
            ("verdict", verdict(t, record)),
            ("charts", charts(t, record)),
            ("table", layer_table(t, record)),
            ("directions", directions(t, record)),
            ("difference", difference(t, record.difference)),
        ),
        limits=[t(f"layers.limits.{key}", samples=samples) for key in LIMITS],
        styles=("layers.css",),
    )


def layer_facts(t: Catalogue, record: LayerAudit) -> Iterator[tuple[str, str]]:
    """Yield terms and values, in the order in which they are shown."""
    kinds = list(dict.fromkeys(map(about, record.layers)))
    yield t("facts.model"), record.model.kind
    if record.source.path:
        yield t("facts.file"), record.source.path
    yield t("layers.facts.layers"), whole(record.model.num_layers)
    kind = kinds[0] if len(kinds) == 1 else t("layers.facts.several")
    yield t("layers.facts.kind"), kind
    yield t("layers.facts.dtype"), record.model.dtype
    yield t("facts.data"), test_data(t, record.data)


def charts(t: Catalogue, record: LayerAudit) -> Markup:
    """Return a drawing for each of R², size and effective rank."""
    layers = record.layers
    found = [size_chart(t, layers)]
    if any(layer.fit is not None for layer in layers):
        found.insert(0, r2_chart(t, layers))
    if any(layer.outputs is not None for layer in layers):
        found.append(rank_chart(t, layers))
    lead = paragraph(t("layers.charts.lead"))
    return section("charts", t("layers.charts.heading"), lead, drawings(found))


def r2_chart(t: Catalogue, layers: Sequence[LayerReading]) -> tuple[str, Figure]:
    """Return R² by degree for each layer; an exact one reaches 1."""
    columns, fits = [], [layer.fit for layer in layers if layer.fit is not None]
    for layer in layers:
        fit = layer.fit
        if fit is not None:
            linear = max(fit.linear, 0.0)
            columns.append(Column(max(fit.quadratic, 0.0), linear, marked=not fit.usable))
        else:
            columns.append(Column(None if layer.broken is not None else 1.0))
    caption, values = t("layers.charts.r2"), [fit.quadratic for fit in fits]
    text = t("layers.charts.r2_text", low=fixed(min(values), 3), high=fixed(max(values), 3))
    level = fits[-1].threshold
    return caption, layer_columns(t, caption, text, columns, top=1.0, level=level)


def size_chart(t: Catalogue, layers: Sequence[LayerReading]) -> tuple[str, Figure]:
    """Return the size of the weights of each layer; one that stands out is marked."""
    limit = 3.5  # that of the rule; a z is there only where there are enough layers
    columns = [Column(layer.weight_norm, marked=(layer.norm_z or 0.0) > limit) for layer in layers]
    caption, values = t("layers.charts.norm"), [layer.weight_norm or 0.0 for layer in layers]
    text = t("layers.charts.norm_text", low=quantity(min(values)), high=quantity(max(values)))
    return caption, layer_columns(t, caption, text, columns)


def rank_chart(t: Catalogue, layers: Sequence[LayerReading]) -> tuple[str, Figure]:
    """Return the effective rank of each layer's outputs, with its null interval."""
    columns = []
    for layer in layers:
        if layer.outputs is None:
            columns.append(Column(None))
            continue
        null = layer.outputs.effective_rank_null
        columns.append(Column(layer.outputs.effective_rank, null=(null.low, null.high)))
    caption, values = t("layers.charts.rank"), [column.value or 0.0 for column in columns]
    text = t("layers.charts.rank_text", low=fixed(min(values), 1), high=fixed(max(values), 1))
    return caption, layer_columns(t, caption, text, columns)


def layer_table(t: Catalogue, record: LayerAudit) -> Markup:
    """Return one row for each layer."""
    columns = [
        TableColumn(t("layers.table.layer"), numeric=False),
        *(TableColumn(t(f"layers.table.{key}")) for key in NUMBERS),
    ]
    rows = []
    for layer in record.layers:
        name = joined(layer.name, " ", element("span", about(layer), class_="quiet"))
        if layer.broken is not None:
            broken = t("layers.table.broken", reason=layer.broken)
            rows.append(Row((name, broken), "broken", spans=True))
            continue
        numbers: list[Content] = list(layer_numbers(t, layer))
        rank = NUMBERS.index("rank")
        numbers[rank] = element("strong", numbers[rank])
        refused = layer.fit is not None and not layer.fit.usable
        rows.append(Row((name, *numbers), "refused" if refused else None))
    lead = paragraph(t("layers.table.lead"))
    caption = t("layers.table.caption")
    body = table(t, caption, columns, rows, class_="layers")
    return section("table", t("layers.table.heading"), lead, body)


def layer_numbers(t: Catalogue, layer: LayerReading) -> tuple[str, ...]:
    """Return the numbers of a layer, in the order of `NUMBERS`; a dash where a claim is refused."""
    fit, outputs, inputs, stable = layer.fit, layer.outputs, layer.inputs, layer.stability
    return (
        t("layers.table.exact")
        if fit is None
        else f"{fixed(fit.quadratic, 3)} ± {fixed(fit.standard_error, 3)}",
        NONE if fit is None else fixed(fit.linear, 3),
        NONE if layer.weight_norm is None else quantity(layer.weight_norm),
        NONE if outputs is None else fixed(outputs.effective_rank, 1),
        NONE if outputs is None else interval(outputs.effective_rank_null),
        NONE if outputs is None else whole(outputs.directions_90),
        NONE if outputs is None else percent(outputs.top_share),
        NONE if layer.units is None else unit_text(layer.units),
        NONE
        if inputs is None or inputs.dominant is None
        else f"{inputs.dominant} ({percent(inputs.share)})",
        NONE if stable is None else f"{stable.guaranteed} / {stable.leading}",
    )


def about(layer: LayerReading) -> str:
    """Return activation and sizes."""
    sizes = " → ".join(map(whole, (layer.d_input, layer.d_hidden, layer.d_output)))
    return f"{layer.activation}, {sizes}"


def interval(null: NullInterval) -> str:
    """Return the range of a null distribution."""
    return f"{fixed(null.low, 1)} – {fixed(null.high, 1)}"


def unit_text(units: Units) -> str:
    """Return how many units are dead, and how many pairs are doubled."""
    return f"{whole(units.dead + units.never_active)} / {whole(units.duplicates)}"


def directions(t: Catalogue, record: LayerAudit) -> Markup:
    """Return a card for each layer whose map is read: what it writes most, and answers to there."""
    read = [layer for layer in record.layers if layer.outputs is not None]
    cards = [direction_card(t, layer, is_open=layer is read[0]) for layer in read]
    if not cards:
        return Markup()
    lead = paragraph(t("layers.directions.lead"))
    return section("directions", t("layers.directions.heading"), lead, *cards)


def direction_card(t: Catalogue, layer: LayerReading, *, is_open: bool) -> Markup:
    """Return the card of one layer."""
    outputs = layer.outputs
    assert outputs is not None, "chosen by it"
    share, rank = outputs.top_share_null, outputs.leading_rank_null
    lead = t(
        "layers.directions.card",
        share=percent(outputs.top_share),
        low=percent(share.low),
        high=percent(share.high),
        rank=fixed(outputs.leading_rank, 1),
        rank_low=fixed(rank.low, 1),
        rank_high=fixed(rank.high, 1),
        of=layer.d_input,
    )
    columns = [
        *(TableColumn(t(f"layers.directions.{key}")) for key in PAIR),
        TableColumn(t("layers.directions.inputs"), numeric=False),
    ]
    rows = [pair_cells(pair) for pair in outputs.pairs]
    label = t("layers.directions.caption", name=layer.name)
    return card(
        [layer.name],
        paragraph(lead),
        quiet(t("layers.directions.outputs", parts=parts_text(outputs.output_parts))),
        table(t, "", columns, rows, named=(), class_="pairs", label=label),
        is_open=is_open,
    )
