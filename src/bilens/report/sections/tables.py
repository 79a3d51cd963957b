"""The page of a model with named columns: what columns and pairs do, and rows taken apart."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from bilens.records.table_audit import (
    InputAttribution,
    InputValues,
    OutputEffects,
    PairEffect,
    RowReading,
    TableAudit,
)
from bilens.report.charts.scores import bar_chart, score_chart
from bilens.report.markup import (
    Column,
    boxed,
    card,
    drawings,
    element,
    facts,
    figure,
    heads,
    joined,
    link,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.sections.coverage import coverage
from bilens.report.sections.decision import checks, verdict
from bilens.report.sections.overview import Page, clean_names, file_facts
from bilens.report.sections.performance import performance
from bilens.report.sections.predictions import outcome_badge, outcome_of, prediction_article
from bilens.report.text import (
    Catalogue,
    adding_up,
    decimals,
    percents,
    quantity,
    shortened,
    signed,
    signed_quantity,
    whole,
)

BESIDE = 25  # letters beside a bar
MOST = 10  # bars of a chart
OPEN = 3  # cards
ROW_KINDS = ("typical", "narrow", "wrong", "farthest", "first")
CONVENTIONS = ("unit", "centring", "size", "baseline")
LIMITS = ("meaning", "correlated", "indicator", "outside", "triggers")
Bars = list[tuple[str, float]]


def table_page(t: Catalogue, record: TableAudit) -> Page:
    is_class = record.model.task == "classification"
    kept = [key for key in CONVENTIONS if key != "centring" or is_class]
    return Page(
        keys="table.page",
        count=len(record.outputs),
        facts=table_facts(t, record),
        parts=(
            ("verdict", verdict(t, record)),
            ("checks", checks(t, record)),
            ("coverage", coverage(t, record.coverage)),
            ("performance", performance(t, record.performance, record.data)),
            ("columns", columns(t, record)),
            ("rows", rows(t, record)),
        ),
        conventions=[
            (t(f"table.conventions.{key}.term"), t(f"table.conventions.{key}.text")) for key in kept
        ],
        limits=t.each("table.limits", LIMITS),
        styles=("layers.css", "table.css"),
    )


def table_facts(t: Catalogue, record: TableAudit) -> Iterator[tuple[str, str]]:
    model, data = record.model, record.data
    yield from file_facts(t, record)
    yield t("table.facts.task"), t(f"table.task.{model.task}")
    yield t("table.facts.columns"), whole(model.d_input)
    yield t("table.facts.outputs"), whole(model.d_output)
    yield t("facts.hidden"), whole(model.d_hidden)
    if data is None:
        yield t("table.facts.rows"), t("facts.no_data")
    else:
        name, count = data.name or t("facts.unnamed_data"), whole(data.num_images)
        yield t("table.facts.rows"), t("table.facts.rows_value", name=name, count=count)


def unit_of(record: TableAudit) -> str:
    return "standard" if record.model.standardised else "raw"


def columns(t: Catalogue, record: TableAudit) -> Markup:
    """Return what columns and pairs of columns do in each output."""
    names = clean_names(record.model.output_names)
    cells = (
        (
            link(f"output-{item.index}", names[item.index]),
            signed_quantity(item.constant),
            quantity(item.variance**0.5),
            *percents([item.linear_share, item.square_share, item.pair_share], 0),
        )
        for item in record.outputs
    )
    keys = ("output", "mean", "deviation", "linear_share", "square_share", "pair_share")
    head = t.each("table.columns", keys)
    unit, scale = t(f"table.unit.{unit_of(record)}"), t(f"table.scale.{record.model.task}")
    cards = (
        output_card(t, record, item, is_open=position < OPEN)
        for position, item in enumerate(record.outputs)
    )
    return section(
        t,
        "table.columns",
        paragraph(f"{t('table.columns.lead')} {unit} {scale}"),
        table(t, t("table.columns.caption"), head, cells),
        worst_case(t, record),
        *cards,
    )


def worst_case(t: Catalogue, record: TableAudit) -> Markup:
    """Return what raises each output most; nothing where the units of columns are not known."""
    if not record.worst_case_inputs:
        return Markup()
    names = clean_names(record.model.output_names)
    inputs = clean_names(record.model.input_names)

    def words(found: InputValues | None) -> tuple[str, str]:
        if found is None:
            return "–", "–"
        values = (
            t("table.worst_case.value", name=inputs[column], z=signed_quantity(z))
            for column, z in zip(found.columns, found.z, strict=True)
        )
        return ", ".join(values), signed_quantity(found.effect)

    cells = (
        (names[item.output], *words(item.one), *words(item.two))
        for item in record.worst_case_inputs
    )
    one, effect, two = t.each("table.worst_case", ("one", "effect", "two"))
    head = heads(
        t("table.columns.output"),
        Column(one, numeric=False),
        effect,
        Column(two, numeric=False),
        effect,
    )
    lead = paragraph(t("table.worst_case.lead"))
    return joined(lead, table(t, t("table.worst_case.caption"), head, cells))


def output_card(t: Catalogue, record: TableAudit, item: OutputEffects, *, is_open: bool) -> Markup:
    """Return the card of an output: its strongest columns, squares and pairs."""
    names = clean_names(record.model.input_names)
    bars = {
        "linear": ranked((names[one.column], one.linear) for one in item.columns),
        "square": ranked((names[one.column], one.square) for one in item.columns),
        "pair": [(pair_label(names, pair), pair.coefficient) for pair in item.pairs],
    }
    drawn = {kind: [row for row in found[:MOST] if row[1] != 0] for kind, found in bars.items()}
    every = [row for shown in drawn.values() for row in shown]
    charts = []
    for kind, shown in drawn.items():
        if shown:
            caption = t(f"table.columns.{kind}")
            text = t("table.columns.text", name=shown[0][0], value=signed_quantity(shown[0][1]))
            charts.append((caption, bar_chart(caption, text, shown, every)))
    numbers = {"columns": len(names), "pairs": item.num_pairs, "most": MOST}
    rest = t("table.columns.rest", **{key: whole(value) for key, value in numbers.items()})
    content = [drawings(charts), quiet(rest)] if charts else [quiet(t("table.columns.none"))]
    title = clean_names(record.model.output_names)[item.index]
    return card([title], *content, anchor=f"output-{item.index}", is_open=is_open)


def ranked(bars: Iterable[tuple[str, float]]) -> Bars:
    return sorted(bars, key=lambda bar: -abs(bar[1]))


def pair_label(names: Sequence[str], pair: PairEffect) -> str:
    """Return two columns as one name that fits beside a bar, each with its share of the room."""
    first, second = names[pair.first], names[pair.second]
    room = BESIDE - 3
    half = max(room // 2, room - min(len(first), len(second)))
    short = half if len(first) > len(second) else room - half
    return f"{shortened(first, short)} × {shortened(second, room - short)}"


def value_label(name: str, value: float) -> str:
    """Return a column with its value, whole beside a bar; the name gives way."""
    text = f" = {quantity(value, 4)}"
    return shortened(name, max(BESIDE - len(text), 4)) + text


def rows(t: Catalogue, record: TableAudit) -> Markup:
    """Return one card for each row; a remark where no rows were given."""
    cards = [row_card(t, record, row, f"row-{order}") for order, row in enumerate(record.rows)]
    lead = paragraph(t(f"table.rows.lead_{unit_of(record)}"))
    return section(t, "table.rows", lead if cards else boxed(t("table.rows.none")), *cards)


def row_card(t: Catalogue, record: TableAudit, row: RowReading, anchor: str) -> Markup:
    names, is_class = clean_names(record.model.output_names), record.model.task == "classification"
    outcome = outcome_of(row.predicted, row.label) if is_class else "unknown"
    kind = row.kind if row.kind in ROW_KINDS else "first"
    predicted = names[row.predicted] if is_class else quantity(row.scores[0], 4)
    pairs = [(t("predictions.says"), predicted)]
    if row.label is not None:
        pairs.append((t("table.rows.truth"), names[row.label]))
    elif row.target is not None:
        pairs.append((t("table.rows.truth"), quantity(row.target, 4)))
    answer, chart = facts(pairs, value_class="word"), Markup()
    if is_class:
        answer = joined(answer, outcome_badge(t, outcome))
        scores = score_chart(t, row.scores, names, row.predicted, row.label)
        chart = figure(scores, t("predictions.scores"), "score-figure")
    parts = (attribution(t, record, row, part) for part in row.attributions)
    return prediction_article(
        anchor,
        outcome,
        t(f"table.rows.{kind}{'' if is_class else '_number'}"),
        quiet(t("table.rows.number", index=whole(row.index))),
        element("div", element("div", answer, class_="answer"), chart, class_="row-case"),
        element("div", *parts, class_="drawings"),
    )


def attribution(
    t: Catalogue, record: TableAudit, row: RowReading, part: InputAttribution
) -> Markup:
    """Return one score of a row, taken apart by columns."""
    names, inputs = clean_names(record.model.output_names), clean_names(record.model.input_names)
    rival = "" if part.rival is None else names[part.rival]
    key = part.kind if part.kind in ("class", "contrast") else "output"
    caption = t(f"table.rows.{key}", name=names[part.output], rival=rival)
    named = ranked(
        (value_label(name, value), added)
        for name, value, added in zip(inputs, row.inputs, part.values, strict=True)
    )
    shown = named if len(named) <= MOST + 1 else named[:MOST]
    if len(named) > len(shown):
        rest = sum(part.values) - sum(value for _, value in shown)
        shown.append((t("table.rows.others", count=whole(len(named) - len(shown))), rest))
    text = t("table.columns.text", name=shown[0][0], value=signed_quantity(shown[0][1]))
    parts = [part.score_at_baseline, *(value for _, value in shown)]
    digits = decimals([part.score, *parts])
    baseline, *rounded = adding_up(parts, digits)
    numbers = {"score": baseline + sum(rounded), "baseline": baseline, "change": sum(rounded)}
    shares = {key: signed(value, digits) for key, value in numbers.items()}
    shown = [(name, value) for (name, _), value in zip(shown, rounded, strict=True)]
    strongest = [
        f"{inputs[pair.first]} × {inputs[pair.second]} ({signed_quantity(pair.value)})"
        for pair in part.pairs[:3]
    ]
    pairs = t("table.rows.pairs", pairs=t.listing(strongest)) if strongest else ""
    return element(
        "figure",
        element("figcaption", caption),
        bar_chart(caption, text, shown, digits=digits),
        quiet(t("table.rows.sum", **shares)),
        quiet(pairs),
    )
