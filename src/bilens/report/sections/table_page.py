"""The page of a model with named columns: what columns and pairs do, and rows taken apart."""

from collections.abc import Iterable, Iterator, Sequence

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.column_readings import (
    ColumnReadings,
    InputAttribution,
    InputValues,
    OutputEffects,
    PairEffect,
    RowReading,
    TableColumn,
    names_of,
)
from bilens.report.charts.curves import pair_field, response_curve
from bilens.report.charts.scores import bar_chart, score_chart
from bilens.report.markup import (
    Column,
    Figure,
    boxed,
    card,
    drawings,
    element,
    facts,
    figure,
    heading,
    heads,
    items,
    joined,
    keyed_table,
    link,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.sections.overview import (
    Page,
    Parts,
    class_names,
    clean_names,
    data_used,
    file_facts,
)
from bilens.report.sections.predictions import outcome_badge, outcome_of, prediction_article
from bilens.report.sections.table_cells import MISSING, cell_text, conversion_lines
from bilens.report.text import (
    NONE,
    Catalogue,
    adding_up,
    decimals,
    grouped,
    percents,
    quantity,
    shortened,
    signed,
    signed_quantity,
)

BESIDE = 34  # letters beside a bar
MOST = 10  # bars of a chart
OPEN = 3  # cards
CURVES = 4  # of an output
POINTS, SIDE = 32, 8  # steps of a curve, and of each side of a field
ROW_KINDS = ("typical", "narrow", "wrong", "farthest", "first", "asked")
CONVENTIONS = ("unit", "centring", "size", "baseline")
LIMITS = ("meaning", "correlated", "indicator", "outside", "triggers")
Bars = list[tuple[str, float]]


def column_page(t: Catalogue, record: Audit, found: ColumnReadings, parts: Parts) -> Page:
    model, sizes = record.model, record.model.one_layer
    is_class = model.task == "classification"
    kept = [key for key in CONVENTIONS if key != "centring" or is_class]
    limits = [key + by_rank(found) * (key == "outside") for key in LIMITS]
    return Page(
        keys="table.page",
        count=len(found.outputs),
        facts=(
            *file_facts(t, record),
            (t("table.facts.task"), t(f"table.task.{model.task}")),
            (t("table.facts.columns"), grouped(len(columns_read(record, found)))),
            (t("table.facts.inputs"), grouped(sizes.d_input)),
            (t("table.facts.outputs"), grouped(sizes.d_output)),
            (t("facts.hidden"), grouped(sizes.d_hidden)),
            (t("table.facts.rows"), data_used(t, record.data, "table.facts.rows_value")),
        ),
        parts=parts,
        conventions=[
            (t(f"table.conventions.{key}.term"), t(f"table.conventions.{key}.text")) for key in kept
        ],
        limits=t.each("table.limits", limits),
        styles=("layers.css", "table.css"),
    )


def reading(t: Catalogue, _: Audit, found: ColumnReadings) -> Markup:
    """Return how the tables were cleaned; nothing where none was read."""
    if found.reading is None:
        return Markup()
    blocks = []
    for key, done in (("training", found.reading.done), ("rows", found.done)):
        blocks += [
            heading(t(f"table.reading.{key}")),
            items(conversion_lines(t, done), "sentences"),
        ]
    return section(t, "table.reading", *blocks)


def shown_inputs(record: Audit, found: ColumnReadings) -> list[str]:
    """Return the names of inputs, with the unit of those that have one."""
    units = {one.name: f" ({one.unit})" for one in known_columns(found) if one.unit}
    names = record.model.input_names or ()
    shown = zip(clean_names(names), names, strict=True)
    return [short + units.get(name, "") for short, name in shown]


def clean_columns(names: Iterable[str]) -> dict[str, str]:
    """Return how each column is called, told from the others."""
    every = [*dict.fromkeys(names)]
    return dict(zip(every, clean_names(every), strict=True))


def known_columns(found: ColumnReadings) -> tuple[TableColumn, ...]:
    return () if found.reading is None else found.reading.columns


def by_rank(found: ColumnReadings) -> str:
    """Return the ending of a sentence's key: some models of tables read columns by rank."""
    return "_rank" if any(one.curve for one in known_columns(found)) else ""


def unit_of(record: Audit) -> str:
    return "standard" if record.model.standardised else "rows" if record.model.rows else "raw"


def columns(t: Catalogue, record: Audit, found: ColumnReadings) -> Markup:
    """Return the effects of columns and of pairs of columns on each output."""
    names = class_names(record)
    cells = []
    for item in found.outputs:
        name = link(f"output-{item.index}", names[item.index])
        sizes = signed_quantity(item.constant), quantity(item.variance**0.5)
        shares = percents([item.linear_share, item.square_share, item.pair_share], 0)
        cells.append((name, *sizes, *shares))
    keys = "output mean deviation linear_share square_share pair_share"
    if unit_of(record) == "raw":
        keys = keys.replace("mean deviation", "zero deviation_raw")
    elif by_rank(found):
        keys = keys.replace("mean", "mean_rank")
    units = f"{unit_of(record)}{by_rank(found)}" if record.model.standardised else unit_of(record)
    scale = "logarithm" if record.model.logarithm else record.model.task
    unit, scale = t(f"table.unit.{units}"), t(f"table.scale.{scale}")
    width = record.model.one_layer.d_input
    counts = {"columns": len(columns_read(record, found)), "inputs": width, "most": MOST}
    cards = []
    for position, item in enumerate(found.outputs):
        charts, counts["pairs"] = output_charts(t, record, found, item), item.num_pairs
        rest = t("table.columns.rest", **{key: grouped(value) for key, value in counts.items()})
        content = [drawings(charts), quiet(rest)] if charts else [quiet(t("table.columns.none"))]
        anchor, is_open = f"output-{item.index}", position < OPEN
        cards.append(card([names[item.index]], *content, anchor=anchor, is_open=is_open))
    return section(
        t,
        "table.columns",
        paragraph(f"{t('table.columns.lead')} {unit} {scale}"),
        keyed_table(t, "table.columns", keys, cells),
        worst_case(t, record, found),
        *cards,
    )


def response_charts(
    t: Catalogue, record: Audit, found: ColumnReadings, item: OutputEffects
) -> Iterator[tuple[str, Figure]]:
    """Yield what the strongest columns do in their own units, and the strongest pair of numbers."""
    names, model = shown_inputs(record, found), record.model
    if model.input_mean is None or model.input_scale is None:
        return
    columns = {name: one for one in known_columns(found) for name in one.inputs}
    grids: dict[int, list[tuple[float, float]]] = {}  # input → values, and z
    for at, name in enumerate(model.input_names or ()):
        mean, scale, column = model.input_mean[at], model.input_scale[at], columns.get(name)
        if column is not None and column.curve and name == names_of(column)[0]:
            grids[at] = [(value, (rank - mean) / scale) for value, rank in column.curve]
        elif column is None or column.name == name or column.kind == "date":
            steps = (4 * step / POINTS - 2 for step in range(POINTS + 1))
            grids[at] = [(mean + scale * z, z) for z in steps]
    alone = {one.column: one for one in item.columns}

    def added(at: int, z: float) -> float:
        return alone[at].linear * z + alone[at].square * z * z

    curves = {
        at: [(x, added(at, z)) for x, z in grids[at]]
        for at in [one.column for one in item.columns if one.column in grids][:CURVES]
    }
    every = [y for points in curves.values() for _, y in points]
    for at, points in curves.items():
        caption = t("table.responses.curve", name=names[at])
        ends = (quantity(edge([y for _, y in points]), 4) for edge in (min, max))
        text = t("table.responses.range", low=next(ends), high=next(ends))
        yield caption, response_curve((caption, text), names[at], points, every)
    column_names = clean_columns(one.column for one in found.categories)
    for one in found.categories:
        caption = t("table.responses.curve", name=column_names[one.column])
        bars = [*zip(clean_names(one.levels), one.effects[item.index], strict=True)]
        yield caption, bar_chart(caption, caption, bars)
    for pair in [p for p in item.pairs if p.first in grids and p.second in grids][:1]:
        every_point = grids[pair.first], grids[pair.second]
        xs, ys = (one[:: max(len(one) // SIDE, 1)] for one in every_point)  # ranks may be few
        field = {
            (x, y): added(pair.first, z) + added(pair.second, v) + pair.coefficient * z * v
            for x, z in xs
            for y, v in ys
        }
        both = names[pair.first], names[pair.second]
        caption = t("table.responses.pair", first=both[0], second=both[1])
        yield caption, pair_field((caption, t("table.responses.pair_text")), both, field)


def worst_case(t: Catalogue, record: Audit, found: ColumnReadings) -> Markup:
    """Return the values that raise each output most; nothing where units are not known."""
    if not found.worst_case_inputs:
        return Markup()
    names = class_names(record)
    inputs = shown_inputs(record, found)

    def words(values: InputValues | None) -> tuple[str, str]:
        if values is None:
            return "–", "–"
        texts = (
            t("table.worst_case.value", name=inputs[column], z=signed_quantity(z))
            for column, z in zip(values.columns, values.z, strict=True)
        )
        return ", ".join(texts), signed_quantity(values.effect)

    cells = (
        (names[item.output], *words(item.one), *words(item.two)) for item in found.worst_case_inputs
    )
    one, effect, two = t.each("table.worst_case", ("one", "effect", "two"))
    first, second = (Column(name, numeric=False) for name in (one, two))
    head = heads(t("table.columns.output"), first, effect, second, effect)
    lead = paragraph(t(f"table.worst_case.lead{by_rank(found)}"))
    return joined(lead, table(t, t("table.worst_case.caption"), head, cells))


def output_charts(
    t: Catalogue, record: Audit, found: ColumnReadings, item: OutputEffects
) -> list[tuple[str, Figure]]:
    names = shown_inputs(record, found)
    bars = {
        "linear": rank_bars((names[one.column], one.linear) for one in item.columns),
        "square": rank_bars((names[one.column], one.square) for one in item.columns),
        "pair": [(pair_label(names, pair), pair.coefficient) for pair in item.pairs],
    }
    if found.reading is not None:  # their columns are drawn in their own units
        bars = {"pair": bars["pair"]}
    drawn = {kind: [row for row in each[:MOST] if row[1] != 0] for kind, each in bars.items()}
    every = [row for shown in drawn.values() for row in shown]
    charts: list[tuple[str, Figure]] = []
    for kind, shown in drawn.items():
        if shown:
            caption = t(f"table.columns.{kind}")
            text = t("table.columns.text", name=shown[0][0], value=signed_quantity(shown[0][1]))
            charts.append((caption, bar_chart(caption, text, shown, every)))
    return [*charts, *response_charts(t, record, found, item)]


def rank_bars(bars: Iterable[tuple[str, float]]) -> Bars:
    return sorted(bars, key=lambda bar: -abs(bar[1]))


def pair_label(names: Sequence[str], pair: PairEffect) -> str:
    """Return two columns as one name that fits beside a bar, each with its share of the room."""
    first, second = names[pair.first], names[pair.second]
    room = BESIDE - 3
    half = max(room // 2, room - min(len(first), len(second)))
    short = half if len(first) > len(second) else room - half
    return f"{shortened(first, short)} × {shortened(second, room - short)}"


def rows(t: Catalogue, record: Audit, found: ColumnReadings) -> Markup:
    """Return one card for each row; a remark where no rows were given."""
    cards = [
        row_card(t, record, found, row, f"row-{order}") for order, row in enumerate(found.rows)
    ]
    unit = f"standard{by_rank(found)}" if record.model.standardised else "raw"
    lead = paragraph(t(f"table.rows.lead_{unit}"))
    return section(t, "table.rows", lead if cards else boxed(t("table.rows.none")), *cards)


def row_card(
    t: Catalogue, record: Audit, found: ColumnReadings, row: RowReading, anchor: str
) -> Markup:
    names, is_class = class_names(record), record.model.task == "classification"
    outcome = outcome_of(row.predicted, row.label) if is_class else "unknown"
    is_sheet = record.data is not None and record.data.source_kind == "table"
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
    parts = (attribution(t, record, found, row, part) for part in row.attributions)
    return prediction_article(
        anchor,
        outcome,
        t(f"table.rows.{kind}{'' if is_class else '_number'}"),
        quiet(t(f"table.rows.{'sheet' if is_sheet else 'number'}", index=grouped(row.index))),
        element("div", element("div", answer, class_="answer"), chart, class_="row-case"),
        filled(t, record, found, row),
        element("div", *parts, class_="drawings"),
    )


def columns_read(record: Audit, found: ColumnReadings) -> dict[str, TableColumn]:
    """Return the columns that a model reads, by what each is called."""
    names = record.model.input_names or ()
    known = known_columns(found) or [TableColumn(name, "number", (name,)) for name in names]
    called = clean_columns(one.name for one in known)
    return {called[one.name]: one for one in known if one.inputs}


def filled(t: Catalogue, record: Audit, found: ColumnReadings, row: RowReading) -> Markup:
    """Return the sentence on what was filled into empty cells of a row; nothing without any."""
    values = dict(zip(record.model.input_names or (), row.inputs, strict=True))
    read = columns_read(record, found)
    empty = {name: one for name, one in read.items() if one.name in row.empty}
    texts = {name: cell_text(one, values) for name, one in empty.items()}
    cells = [name if text == NONE else f"{name} ({text})" for name, text in texts.items() if text]
    key = f"table.rows.filled{by_rank(found)}"
    return quiet(t(key, cells=t.listing(cells))) if cells else Markup()


def by_column(
    t: Catalogue, record: Audit, found: ColumnReadings, row: RowReading, part: InputAttribution
) -> Iterator[tuple[str, float]]:
    """Yield each column with what its cell says and what its inputs add together."""
    names = record.model.input_names or ()
    values = dict(zip(names, row.inputs, strict=True))
    added = dict(zip(names, part.values, strict=True))
    for name, column in columns_read(record, found).items():
        is_empty = column.name in row.empty or values.get(f"{column.name}={MISSING}") == 1
        cell = t("table.rows.empty") if is_empty else cell_text(column, values)
        text = f" = {shortened(cell, BESIDE // 2)}" if cell else ""
        yield (
            shortened(name, max(BESIDE - len(text), 4)) + text,
            sum(added[each] for each in column.inputs),
        )


def attribution(
    t: Catalogue, record: Audit, found: ColumnReadings, row: RowReading, part: InputAttribution
) -> Markup:
    """Return one score of a row, taken apart by columns."""
    names, inputs = class_names(record), shown_inputs(record, found)
    rival = "" if part.rival is None else names[part.rival]
    key = part.kind if part.kind in ("class", "contrast") else "output"
    caption = t(f"table.rows.{key}", name=names[part.output], rival=rival)
    bars = rank_bars(by_column(t, record, found, row, part))
    shown = bars if len(bars) <= MOST + 1 else bars[:MOST]
    if len(bars) > len(shown):
        rest = sum(part.values) - sum(value for _, value in shown)
        shown.append((t("table.rows.others", count=grouped(len(bars) - len(shown))), rest))
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
