"""The page of many layers: charts, a table, what each layer writes most, what changed."""

import math
from collections.abc import Sequence
from functools import partial

from markupsafe import Markup

from bilens.findings.rules.rule import list_names
from bilens.records.audit import Audit
from bilens.records.layer_readings import (
    ChangeDirection,
    Component,
    Difference,
    InputShares,
    LayerDifference,
    LayerReading,
    LayerReadings,
    LeadingPair,
    ModeChange,
    Units,
)
from bilens.report.charts.spectrum_charts import LayerColumn, layer_columns
from bilens.report.markup import (
    Column,
    Content,
    Figure,
    card,
    drawings,
    element,
    heading,
    heads,
    joined,
    keyed_table,
    paragraph,
    quiet,
    section,
    table,
    vector_image,
)
from bilens.report.raster import Painter
from bilens.report.sections.difference import (
    alignment_sentences,
    reason_text,
    whole_difference,
    word_trial,
)
from bilens.report.sections.overview import Page, Parts, data_used, file_facts
from bilens.report.tables import FieldColumn, FieldTable, TableRow
from bilens.report.text import (
    NONE,
    Catalogue,
    fixed,
    grouped,
    percent,
    quantity,
    r_squared,
    scientific,
    signed,
    signed_quantity,
)

LIMITS = ("layer", "fit", "norm", "null", "meaning", "triggers")
LARGE_Z = 3.5  # that of the rule; a z is there only where there are enough layers


def charts(t: Catalogue, _: Audit, found: LayerReadings) -> Markup:
    """Return drawings of R², size and rank of all layers; nothing where none can be read."""
    drawn, lead = layer_charts(t, found.readings), paragraph(t("layers.charts.lead"))
    return section(t, "layers.charts", lead, drawings(drawn)) if drawn else Markup()


def layer_page(t: Catalogue, record: Audit, found: LayerReadings, parts: Parts) -> Page:
    if not found.readings:
        shown = (*file_facts(t, record), (t("layers.facts.dtype"), record.model.dtype))
        return Page("file.page", 0, shown, parts, [t("layers.limits.none")], styles=("layers.css",))
    limits = LIMITS if record.overfitting is None else LIMITS[:-1]  # triggers were searched for
    kinds = {layer_summary(layer) for layer in found.readings}
    text = "" if record.text is None else record.text.name
    return Page(
        keys="layers.page",
        count=len(found.readings),
        facts=(
            *file_facts(t, record),
            (t("layers.facts.layers"), grouped(record.model.num_layers)),
            (t("layers.facts.kind"), kinds.pop() if len(kinds) == 1 else t("layers.facts.several")),
            (t("layers.facts.dtype"), record.model.dtype),
            (t("facts.data"), data_used(t, record.data)),
            (t("layers.facts.fit"), text or inputs_of_fits(t, found) or NONE),
        ),
        parts=parts,
        limits=t.each("layers.limits", limits, samples=grouped(record.null_samples)),
        styles=("layers.css",),
        lead=".assumed" if {one.how_read for one in found.readings} == {"assumed"} else "",
    )


def layer_summary(layer: LayerReading) -> str:
    sizes = " → ".join(map(grouped, (layer.d_input, layer.d_hidden, layer.d_output)))
    return f"{layer.activation}, {sizes}"


def layer_charts(t: Catalogue, layers: Sequence[LayerReading]) -> list[tuple[str, Figure]]:
    """Return a drawing for each of R², size and effective rank, as far as they are known."""
    fitted, sized, ranked = [], [], []
    for layer in layers:
        fit, outputs = layer.fit, layer.outputs
        sized.append(LayerColumn(layer.weight_norm, marked=(layer.norm_z or 0.0) > LARGE_Z))
        if fit is None:
            fitted.append(LayerColumn(None if layer.broken is not None else 1.0))
        else:
            share, linear = (max(one or 0.0, 0.0) for one in (fit.quadratic, fit.linear))
            fitted.append(LayerColumn(share, linear, marked=not fit.usable, assumed=not fit.seen))
        null = None if outputs is None else outputs.effective_rank_null
        rank = None if outputs is None else outputs.effective_rank
        ends, assumed = (None if null is None else (null.low, null.high)), fitted[-1].assumed
        ranked.append(LayerColumn(rank, null=ends, assumed=assumed))
    fits = [layer.fit for layer in layers if layer.fit is not None]
    scores = [-math.inf if fit.quadratic is None else fit.quadratic for fit in fits]
    scale = {"top": 1.0, "level": fits[-1].threshold} if fits else {}
    norms, ranks = ([one.value for one in x if one.value is not None] for x in (sized, ranked))
    drawn = []
    for key, columns, values, show, limits in (
        ("r2", fitted, scores, lambda x: r_squared(x if math.isfinite(x) else None, -1), scale),
        ("norm", sized, norms, quantity, {}),
        ("rank", ranked, ranks, partial(fixed, digits=1), {}),
    ):
        if values:
            said = {"low": show(min(values)), "high": show(max(values))}
            caption, text = t(f"layers.charts.{key}"), t(f"layers.charts.{key}_text", **said)
            drawn.append((caption, layer_columns(t, (caption, text), columns, **limits)))
    return drawn


def layer_table(t: Catalogue, _: Audit, found: LayerReadings) -> Markup:
    rows = layer_rows(t, found)
    if not rows:
        return Markup()
    body = LAYERS.on_page(t, rows, class_="layers")
    return section(t, "layers.table", paragraph(t("layers.table.lead")), body)


def layer_rows(t: Catalogue, found: LayerReadings) -> list[TableRow]:
    """Return a row for each layer: its reading, or why it cannot be read."""
    rows = []
    for layer in found.readings:
        refused = layer.fit is not None and not layer.fit.usable
        broken = layer.broken and t("layers.table.broken", reason=layer.broken)
        assumed = layer.fit is not None and not layer.fit.seen
        class_ = "broken" if broken else "refused" if refused else "assumed" if assumed else None
        rows.append(TableRow(layer, broken or "", class_))
    return rows


def named_layer(_: Catalogue, layer: LayerReading) -> Markup:
    return joined(layer.name, " ", element("span", layer_summary(layer), class_="quiet"))


def fit_text(t: Catalogue, layer: LayerReading) -> str:
    """Return R² with its standard error, and of the median input where that is known."""
    if (fit := layer.fit) is None:
        return t("layers.table.exact")
    said, over = r_squared(fit.quadratic, -1), fit.over_files
    if over is not None and over.low is not None and over.high is not None:
        said = f"{said} [{fixed(over.low, 3, -1)}, {fixed(over.high, 3, 1)}]"
    else:
        said = f"{said} ± {fixed(fit.standard_error, 3)}"
    if fit.median is not None:
        said = t("layers.table.median", all=said, median=fixed(fit.median, 3, -1))
    return said if fit.seen else t("layers.table.assumed", all=said)


def inputs_of_fits(t: Catalogue, found: LayerReadings) -> str:
    """Name the inputs that R² is of: rows that were held out, or which were assumed."""
    fits = [layer.fit for layer in found.readings if layer.fit is not None]
    seen = [t("layers.facts.rows")] if any(fit.seen for fit in fits) else []
    assumed = dict.fromkeys(fit.assumed_input for fit in fits if not fit.seen)
    named = list_names([t.word("explorer.script.words", one) for one in assumed])
    return "; ".join([*seen, *([t("layers.facts.normal", inputs=named)] if assumed else [])])


def unit_counts(_: Catalogue, units: Units) -> str:
    """Return how many units do nothing, and how many pairs do the same."""
    return f"{grouped(units.dead + units.never_active)} / {grouped(units.duplicates)}"


def strongest_input(_: Catalogue, found: InputShares) -> str:
    if found.dominant is None:
        return NONE
    return f"{found.name or found.dominant} ({percent(found.share, toward=1)})"


LAYERS = FieldTable(
    LayerReading,
    (
        FieldColumn("name", drawn=named_layer, numeric=False),
        FieldColumn("fit", fit_text),
        FieldColumn("fit.linear", lambda _, fit: r_squared(fit.linear)),
        FieldColumn("weight_norm"),
        FieldColumn("outputs.effective_rank", strong=True),
        FieldColumn("outputs.effective_rank_null"),
        FieldColumn("outputs.directions_90"),
        FieldColumn("outputs.top_share", where="page"),
        FieldColumn("outputs.pairs.0.eigenvalue", where="text"),
        FieldColumn("units.dead", unit_counts),
        FieldColumn("inputs.dominant", strongest_input, where="page"),
        FieldColumn(
            "stability.guaranteed", lambda _, x: f"{x.guaranteed} / {x.leading}", where="page"
        ),
    ),
    "layers.table.caption",
)


def directions(t: Catalogue, _: Audit, found: LayerReadings) -> Markup:
    """Return a card for each layer whose map is read: what it writes most, and answers to there."""
    cards: list[Markup] = []
    for layer in found.readings:
        outputs = layer.outputs
        if outputs is None:
            continue
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
        parts = parts_text(outputs.output_parts)
        cards.append(pair_card(t, layer.name, lead, parts, outputs.pairs, is_open=not cards))
    if not cards:
        return Markup()
    return section(t, "layers.directions", paragraph(t("layers.directions.lead")), *cards)


def pair_card(
    t: Catalogue,
    name: str,
    lead: str,
    parts: str,
    pairs: Sequence[LeadingPair | ChangeDirection],
    painter: Painter | None = None,
    *,
    is_open: bool,
    level: int = 3,
) -> Markup:
    """Return the card of a layer with eigenpairs; `painter` draws their vectors."""
    columns = heads(
        *map(Column, t.each("layers.directions", ("eigenvalue", "explained", "residual"))),
        Column(t("layers.directions.inputs"), numeric=False),
    )
    rows = list[list[Content]]()
    for one in pairs:
        value, inputs = signed_quantity(one.eigenvalue), parts_text(one.parts)
        rows.append([value, percent(one.explained), scientific(one.residual), inputs])
        if painter is not None:
            vector = one.vector if isinstance(one, ChangeDirection) else None
            alt = t("layers.difference.picture", value=value)
            rows[-1].insert(0, "" if vector is None else vector_image(painter, vector, alt))
    if painter is not None:
        columns.insert(0, Column(t("layers.difference.pattern"), numeric=False))
    label = t("layers.directions.caption", name=name)
    return card(
        [name],
        paragraph(lead),
        quiet(t("layers.directions.outputs", parts=parts)),
        table(t, "", columns, rows, named=(), class_="pairs", label=label),
        is_open=is_open,
        level=level,
    )


def parts_text(parts: Sequence[Component], names: Sequence[str] | None = None) -> str:
    """Return coordinates, by number or name, with their components."""
    return ", ".join(
        f"{part.index if names is None else names[part.index]} ({signed(part.component)})"
        for part in parts
    )


def difference(
    t: Catalogue,
    found: Difference,
    names: Sequence[str] | None = None,
    painter: Painter | None = None,
    lead: Sequence[Content] = (),
) -> Markup:
    """Return the changes from a baseline, behind a lead.

    `names` are those of the outputs where they are classes; `painter` draws input directions.
    """
    cards = list[Markup]()
    head = None if found.whole is None else found.whole.headline
    related = head is None or head.kind != "unrelated"  # else a change is the whole model
    if head is not None and head.kind == "differ" and head.differing == head.tensors:
        related = (head.correlation or 1.0) > (head.chance or 0.0)  # of small ones by chance
    for layer in (one for one in found.layers if related and one.triggers):
        outputs, inputs = layer.outputs, layer.inputs
        assert outputs is not None, "it has directions"
        assert inputs is not None, "it has directions"
        about = t(
            "layers.difference.card",
            outputs=grouped(outputs.directions_90),
            inputs=grouped(inputs.directions_90),
            share=percent(outputs.top_share),
            input_share=percent(inputs.top_share),
        )
        content = t, layer.name, about, parts_text(layer.output_parts, names), layer.triggers
        cards.append(pair_card(*content, painter, is_open=not cards, level=4))
    if cards:
        lead_of_cards = paragraph(t("layers.difference.triggers_lead"))
        cards = [heading(t("layers.difference.triggers")), lead_of_cards, *cards]
    blocks = [*lead, *map(paragraph, alignment_sentences(t, found))]
    if found.whole is not None:
        blocks += whole_difference(t, found.whole)
    if found.trial is not None:
        blocks += word_trial(t, found.trial)
    if found.layers:
        blocks += [
            paragraph(change_lead(t, found), " ", t("layers.difference.how")),
            LAYER_CHANGES.on_page(t, change_rows(t, found.layers), class_="layers"),
        ]
    pulled = []
    for name, one in ((x.name, one) for x in found.layers for one in x.token_pairs):
        tokens = " × ".join(f"“{token}”" for token in one.tokens)
        pulled.append([name, tokens, f"“{one.output}”", fixed(one.pull, 2)])
    if pulled:
        keys = "layer tokens output pull"
        blocks.append(keyed_table(t, "difference.pairs", keys, pulled, class_="layers"))
        blocks.append(quiet(t("difference.pairs.how")))
    return section(t, "layers.difference", *blocks, *cards)


def change_lead(t: Catalogue, found: Difference) -> str:
    """Return how many layers changed from which baseline."""
    return t(
        "layers.difference.lead",
        changed=grouped(sum(not layer.identical for layer in found.layers)),
        of=grouped(len(found.layers)),
        baseline=found.baseline.path or t("layers.difference.unnamed"),
    )


def note(t: Catalogue, layer: LayerDifference) -> str:
    """Return the remark that replaces the numbers of a layer, or an empty text."""
    if layer.identical:
        return t("layers.difference.identical")
    if layer.same_function:
        return t("layers.difference.same_function")
    if layer.refused is not None:
        return t("layers.difference.refused", reason=reason_text(t, layer.refused))
    return ""


def change_rows(t: Catalogue, layers: Sequence[LayerDifference]) -> list[TableRow]:
    """Return a row for each layer: its numbers, or what is said in their place."""
    return [TableRow(layer, note(t, layer)) for layer in layers]


def rank_with_null(found: ModeChange | None) -> str:
    if found is None:
        return NONE
    null = found.effective_rank_null
    return f"{fixed(found.effective_rank, 1)} ({NONE if null is None else fixed(null, 1)})"


LAYER_CHANGES = FieldTable(
    LayerDifference,
    (
        FieldColumn("name", numeric=False),
        FieldColumn("weight_change", where="page"),
        FieldColumn("changed_units", where="page"),
        FieldColumn("change"),
        FieldColumn("linear_change", where="page"),
        FieldColumn("frobenius"),
        FieldColumn("gaussian"),
        FieldColumn("outputs", lambda _, layer: rank_with_null(layer.outputs)),
        FieldColumn("inputs", lambda _, layer: rank_with_null(layer.inputs)),
    ),
    "layers.difference.caption",
)
