"""Tables and lines that commands print of audits, certificates and attacks, from records.

Every cell is a `Text`: no name in a file is read as markup, and none can drive the terminal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import zip_longest
from typing import Final, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from bilens.records.attack import Attack
from bilens.records.audit import Audit, ReadAs
from bilens.records.base import displayable
from bilens.records.decision import AuditIndex
from bilens.records.guarantees import Certificate
from bilens.records.layer_readings import LayerReading
from bilens.report.markup import ICONS
from bilens.report.sections.attack_page import data_read, proof_claim
from bilens.report.sections.certificate_page import statements
from bilens.report.sections.coverage import unread_lines
from bilens.report.sections.decision_page import INDEXED, decision_lines, group_lines, row_texts
from bilens.report.sections.difference import (
    COLUMNS,
    DIRECTIONS,
    TRIAL,
    change_sentences,
    direction_rows,
    tensor_rows,
    trial_rows,
)
from bilens.report.sections.input_findings import input_lines
from bilens.report.sections.overview import clean_names, condition_lines, mark
from bilens.report.sections.performance_section import data_notes, performance_lines
from bilens.report.text import (
    NONE,
    fixed,
    floored,
    load_catalogue,
    percent,
    r_squared,
    raised,
    signed_quantity,
)

MOST_EFFECTS = 4  # columns and pairs of an output
EFFECTS = (  # title, format, and part and number of a curve
    ("Share that keep their right answer", ".3f", "effect", "accuracy"),
    ("Mean margin of the label over the target", ".1f", "effect", "margin"),
    ("Share taken for the target", ".3f", "effect", "target_rate"),
    ("Share that keep their right answer, pixels clipped to [0, 1]", ".3f", "clipped", "accuracy"),
)
NO_INPUT = "a standard normal input, which is no real one"
LAYER_CAPTION = (
    "R² of the quadratic approximation on {inputs}; — where a claim is refused or the layer cannot "
    "be read. Rank: of the output directions. Null: what chance would give, the null interval of "
    "the rank."
)


def grid(
    columns: Iterable[str],
    *,
    title: str = "",
    caption: str = "",
    look: Literal["framed", "tight", "open", "bare"] = "framed",
    align: Literal["left", "center"] = "center",
) -> Table:
    """Return an empty table; a column whose name begins with > holds numbers."""
    table = Table(
        title=Text(title) if title else None,
        caption=Text(caption) if caption else None,
        title_justify=align,
        caption_justify=align,
        box=None if look == "bare" else box.HEAVY_HEAD,
        show_edge=look != "open",
        pad_edge=look in ("framed", "bare"),
    )
    for name in columns:
        side: Literal["left", "right"] = "right" if name.startswith(">") else "left"
        table.add_column(Text(name.removeprefix(">")), justify=side, overflow="fold")
    return table


def add(table: Table, *cells: str, last: bool = False) -> None:
    """Add a row of texts as they are; the last one of a group has a line below it."""
    table.add_row(*map(Text, cells), end_section=last)


def short(value: float) -> str:
    """Return a number from 0 to 9999 in at most four digits."""
    return f"{value:.{2 if value < 10 else 1 if value < 100 else 0}f}"


def optional(value: float | None, form: str, none: str = NONE) -> str:
    """Return a number as text, a dash for None."""
    return none if value is None else format(value, form)


def class_table(record: Audit, lang: str = "en") -> Table:
    """Return one row for each class: ranks beside null intervals, both ends of spectra."""
    t = load_catalogue(lang)
    keys = ("rank", "null", "embedding", "significant", "largest", "smallest")
    heads = (t("terminal.class"), *(f">{name}" for name in t.each("terminal", keys)))
    table = grid(heads, caption=t("terminal.caption"), look="tight", align="left")
    classes = None if record.classes is None else displayable(record.classes)
    for reading in () if classes is None else classes.readings:
        null = reading.effective_rank_null
        add(
            table,
            reading.name,
            fixed(reading.effective_rank, 1),
            f"{fixed(null.low, 1)}–{fixed(null.high, 1)}",
            fixed(reading.effective_rank_embedding, 1),
            f"{reading.significant_positive} / {reading.significant_negative}",
            signed_quantity(max(reading.eigenvalues)),
            signed_quantity(min(reading.eigenvalues)),
        )
    return table


def layer_table(record: Audit) -> Table:
    """Return one row for each layer: its fit, size, rank and dead units."""
    heads = ("layer", ">R²", ">linear", ">‖W‖", ">rank", ">null", ">90%", ">largest λ", ">dead")
    layers = () if record.layers is None else displayable(record.layers).readings
    fits = [layer.fit for layer in layers if layer.fit is not None]
    inputs = {fit.assumed_input if fit.seen else NO_INPUT: None for fit in fits} or [NO_INPUT]
    caption = LAYER_CAPTION.format(inputs="; ".join(inputs))
    table = grid(heads, caption=caption, look="tight", align="left")
    for layer in layers:
        add(table, layer.name, *layer_cells(layer))
    return table


def layer_cells(layer: LayerReading) -> list[str]:
    if layer.broken is not None or layer.units is None:
        return ["broken", *7 * [NONE]]
    fit, outputs, units = layer.fit, layer.outputs, layer.units
    first = (
        ["exact", NONE] if fit is None else [r_squared(fit.quadratic, -1), r_squared(fit.linear)]
    )
    first.append(optional(layer.weight_norm, ".4g"))
    dead = str(units.dead + units.never_active)
    if outputs is None:
        return [*first, *4 * [NONE], dead]
    null = outputs.effective_rank_null
    return [
        *first,
        short(outputs.effective_rank),
        f"{short(null.low)}–{short(null.high)}",
        str(outputs.directions_90),
        f"{outputs.pairs[0].eigenvalue:+.3g}",
        dead,
    ]


def column_table(record: Audit) -> Table:
    """Return the strongest columns and pairs of every output of a table's model."""
    model = record.model
    unit = "columns in deviations of the rows" if model.rows else "columns as they come"
    unit = "standardised columns" if model.standardised else unit
    normal = model.standardised or model.rows
    table = grid(
        ("output", "column", ">b", ">q", "pair", ">2q"),
        caption=f"Coefficients of {unit}: b z + q z² for a column, 2q z z′ for a pair; sorted by "
        "the standard deviation that they bring"
        + ("." if normal else " to independent standard normal columns, which these need not be."),
        align="left",
    )
    record = displayable(record)
    names = record.model.input_names or ()
    for item in () if record.columns is None else record.columns.outputs:
        columns = [
            (names[one.column], f"{one.linear:+.4g}", f"{one.square:+.4g}")
            for one in item.columns[:MOST_EFFECTS]
        ]
        pairs = [
            (f"{names[one.first]} × {names[one.second]}", f"{one.coefficient:+.4g}")
            for one in item.pairs[:MOST_EFFECTS]
        ]
        count = max(len(columns), len(pairs))
        cells = zip_longest(columns, pairs, fillvalue=("", "", ""))
        for row, (column, pair) in enumerate(cells):
            add(table, "" if row else item.name, *column, *pair[:2], last=row == count - 1)
    return table


TABLES: Final[Mapping[ReadAs, Callable[[Audit], Table]]] = {
    "classes": class_table,
    "layers": layer_table,
    "columns": column_table,
}


def audit_table(record: Audit) -> Table:
    """Return the table of an audit: of its classes, its layers or its columns."""
    return TABLES[record.read_as](record)


def index_table(index: AuditIndex, lang: str = "en") -> Table:
    """Return one row for each of many models, the worst first."""
    t = load_catalogue(lang)
    table = grid(t.each("index", INDEXED.split()), look="tight", align="left")
    for row in displayable(index).models:
        add(table, *row_texts(t, row), last=True)
    return table


def verdict_lines(record: Audit, lang: str = "en") -> list[str]:
    """Return every finding in its group, the conditions that were asked for, and the decision."""
    t, shown = load_catalogue(lang), displayable(record)
    lines = []
    for group in group_lines(t, shown):
        lines.append(f"{group.question} {ICONS[group.outcome]} {group.badge}. {group.text}")
        lines += [f"  {mark(t, line.outcome)}: {line.sentence}" for line in group.findings]
    if shown.performance is not None:
        lines += performance_lines(t, shown.performance)
    if shown.inputs is not None:
        lines += input_lines(t, shown.inputs, clean_names(shown.model.output_names))
    lines += [f"{ICONS['info']} {line}" for line in unread_lines(t, shown.coverage)]
    lines += [f"{mark(t, line.outcome)}: {line.sentence}" for line in condition_lines(t, shown)]
    if shown.difference is not None and (whole := shown.difference.whole) is not None:
        rows, ways = tensor_rows(t, whole), direction_rows(t, whole)
        lines += map(" · ".join, [t.each("difference.table", COLUMNS), *rows] if rows else [])
        lines += map(" · ".join, [t.each("difference.directions", DIRECTIONS), *ways] * bool(ways))
    lines += change_sentences(t, shown)
    if shown.difference is not None and (trial := shown.difference.trial) is not None:
        lines += map(" · ".join, [t.each("difference.trial", TRIAL), *trial_rows(trial)])
    answer, *rest = decision_lines(t, shown)
    return [*lines, t("verdict.heading"), *rest, answer]


def truncation_table(record: Certificate) -> Table:
    """Return one row for each number of eigenpairs kept."""
    cut = record.truncation
    table = grid(
        (">k", ">largest error", ">provably same", ">same answer"),
        title="Truncation to k eigenpairs of each class",
        caption=f"Largest error: of any class-centred score over ‖x‖ ≤ {floored(cut.radius)}, "
        "proven. * = the k that was asked for, or is enough.",
    )
    for point in cut.points:
        add(
            table,
            f"{point.k}*" if point.k == cut.chosen else str(point.k),
            raised(max(point.bounds)),
            NONE if point.certified is None else percent(point.certified, toward=-1),
            NONE if point.agreement is None else percent(point.agreement),
        )
    return table


def certificate_lines(record: Certificate) -> list[str]:
    shown, t = displayable(record), load_catalogue("en")
    proven = statements(t, shown.model, shown)
    said = [f"• {item.term}: {item.claim} Holds for: {item.scope}" for item in proven]
    return said + data_notes(t, shown.data)


def attack_tables(record: Attack) -> Iterator[Table]:
    """Return one table for each effect, with a row a method and a column a length."""
    t = load_catalogue("en")
    for title, form, part, number in EFFECTS:
        heads = (f">{epsilon:g}" for epsilon in record.epsilons)
        table = grid(["perturbation \\ ε", *heads], title=title, look="bare", align="left")
        table.padding = (0, 1, 0, 0)
        known = [(x.kind, getattr(getattr(x, part), number, None)) for x in record.curves]
        if all(values is not None for _, values in known):
            for kind, values in known:
                add(table, t(f"attack.kind.{kind}"), *(format(v, form) for v in values or ()))
            yield table


def attack_lines(record: Attack) -> Iterator[str]:
    t = load_catalogue("en")
    yield proof_claim(t, record)
    yield from t.each("attack", ("proven", "not_proven"))
    yield from data_read(t, record)
