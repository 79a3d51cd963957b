"""Tables and lines that commands print of audits, certificates and attacks, from records.

Every cell is a `Text`: no name in a file is read as markup, and none can drive the terminal.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from itertools import zip_longest
from typing import Final, Literal

from rich import box
from rich.table import Table
from rich.text import Text

from bilens.records.attack import Attack, MethodCurve
from bilens.records.audit import Audit, ReadAs
from bilens.records.base import Record, displayable
from bilens.records.decision import AuditIndex
from bilens.records.guarantees import Certificate
from bilens.records.inventory import Inventory
from bilens.records.layer_readings import LayerReadings
from bilens.records.view import value_at
from bilens.report.markup import ICONS
from bilens.report.sections.attack_page import data_read, effects_at, proof_claim
from bilens.report.sections.certificate_page import cut_table, statements
from bilens.report.sections.classes import class_rows, class_table
from bilens.report.sections.coverage import unread_lines
from bilens.report.sections.decision_page import INDEXED, decision_lines, group_lines, row_texts
from bilens.report.sections.difference import (
    DIRECTIONS,
    TENSORS,
    TRIAL,
    change_sentences,
    headline_lines,
    largest_changes,
)
from bilens.report.sections.input_findings import input_lines
from bilens.report.sections.inventory_section import (
    GROUPS,
    MOST_ROWS,
    inventory_lines,
    inventory_tables,
)
from bilens.report.sections.layers import LAYERS, inputs_of_fits, layer_rows
from bilens.report.sections.overview import clean_names, condition_lines, mark
from bilens.report.sections.performance_section import data_notes, performance_lines
from bilens.report.sections.seen_inputs import SEEN
from bilens.report.tables import FieldTable, TableRow
from bilens.report.text import NONE, Catalogue, floored, load_catalogue, signed_quantity

MOST_EFFECTS = 4  # columns and pairs of an output


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


def field_table(
    t: Catalogue,
    described: FieldTable,
    rows: Iterable[TableRow | Record],
    caption: str,
    *,
    title: str = "",
    look: Literal["tight", "bare"] = "tight",
) -> Table:
    """Return a described table, with what it is about below it."""
    heads, numeric, cells = described.as_texts(t, rows)
    names = (f">{head}" if right else head for head, right in zip(heads, numeric, strict=True))
    table = grid(names, title=title, caption=caption, look=look, align="left")
    for row in cells:
        add(table, *row)
    return table


def audited_classes(t: Catalogue, record: Audit) -> Table:
    """Return one row for each class: ranks beside null intervals, both ends of spectra."""
    rows = class_rows(record)
    return field_table(t, class_table(rows), rows, t("classes.table.caption"))


def audited_layers(t: Catalogue, record: Audit) -> Table:
    """Return one row for each layer: its fit, size, rank and dead units."""
    found = LayerReadings(()) if record.layers is None else record.layers
    if not found.readings and record.inventory is not None:
        rows = record.inventory.groups[:MOST_ROWS]
        return field_table(t, GROUPS, rows, t(GROUPS.caption))
    caption = t("layers.table.about", inputs=inputs_of_fits(t, found) or NONE)
    return field_table(t, LAYERS, layer_rows(t, found), caption)


def audited_columns(t: Catalogue, record: Audit) -> Table:
    """Return the strongest columns and pairs of every output of a table's model."""
    heads = t.each("table.strongest", ("output", "column", "linear", "square", "pair", "both"))
    unit = "standard" if record.model.standardised else "rows" if record.model.rows else "raw"
    table = grid(
        (f">{head}" if at in (2, 3, 5) else head for at, head in enumerate(heads)),
        caption=t(f"table.strongest.{unit}"),
        align="left",
    )
    names = record.model.input_names or ()
    for item in () if record.columns is None else record.columns.outputs:
        columns = [
            (names[one.column], signed_quantity(one.linear, 4), signed_quantity(one.square, 4))
            for one in item.columns[:MOST_EFFECTS]
        ]
        pairs = [
            (f"{names[one.first]} × {names[one.second]}", signed_quantity(one.coefficient, 4))
            for one in item.pairs[:MOST_EFFECTS]
        ]
        count = max(len(columns), len(pairs))
        cells = zip_longest(columns, pairs, fillvalue=("", "", ""))
        for row, (column, pair) in enumerate(cells):
            add(table, "" if row else item.name, *column, *pair[:2], last=row == count - 1)
    return table


TABLES: Final[Mapping[ReadAs, Callable[[Catalogue, Audit], Table]]] = {
    "classes": audited_classes,
    "layers": audited_layers,
    "columns": audited_columns,
}


def audit_table(record: Audit, lang: str = "en") -> Table:
    """Return the table of an audit, of its classes, layers or columns, under what changed."""
    t, shown = load_catalogue(lang), displayable(record)
    table = TABLES[record.read_as](t, shown)
    if lines := headline_lines(t, shown):
        table.title, table.title_justify = "\n".join(lines), "left"
    return table


def inventory_parts(record: Inventory, lang: str = "en") -> Iterator[Table | str]:
    """Yield what a file is: sentences, then tables."""
    t, shown = load_catalogue(lang), displayable(record)
    yield from inventory_lines(t, shown)
    for table, rows, more in inventory_tables(shown):
        caption = t("inventory.more", count=more) if more else ""
        yield field_table(t, table, rows, caption, title=t(table.caption))


def file_lines(index: AuditIndex, lang: str = "en") -> Iterator[str]:
    """Yield each file of the folders that is no part of a model that was audited."""
    t = load_catalogue(lang)
    for one in displayable(index).files:
        if one.state != "read":
            said = f" ({one.said})" if one.said else ""
            yield f"{one.name}: {t(f'inventory.state.{one.state}')}{said}"


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
    stop = "。" if lang == "ja" else ". "
    for group in group_lines(t, shown):
        lines.append(f"{group.question} {ICONS[group.outcome]} {group.badge}{stop}{group.text}")
        lines += [f"  {mark(t, line.outcome)}: {line.sentence}" for line in group.findings]
    if shown.performance is not None:
        lines += performance_lines(t, shown.performance)
    elif shown.layers is not None:
        lines += data_notes(t, shown.data)
        seen = [layer for layer in shown.layers.readings if layer.seen is not None]
        lines += joined_cells(t, SEEN, seen)
    if shown.inputs is not None:
        lines += input_lines(t, shown.inputs, clean_names(shown.model.output_names))
    if shown.inventory is not None:
        lines.append(t("inventory.heading"))
        lines += [f"  {line}" for line in inventory_lines(t, shown.inventory)]
    lines += [f"{ICONS['info']} {line}" for line in unread_lines(t, shown.coverage)]
    lines += [f"{mark(t, line.outcome)}: {line.sentence}" for line in condition_lines(t, shown)]
    if shown.difference is not None and (whole := shown.difference.whole) is not None:
        lines += joined_cells(t, TENSORS, largest_changes(whole))
        lines += joined_cells(t, DIRECTIONS, whole.directions)
    lines += change_sentences(t, shown)
    if shown.difference is not None and (trial := shown.difference.trial) is not None:
        lines += joined_cells(t, TRIAL, trial.candidates)
    answer, *rest = decision_lines(t, shown)
    return [*lines, t("verdict.heading"), *rest, answer]


def joined_cells(t: Catalogue, described: FieldTable, rows: Sequence[Record]) -> list[str]:
    """Return a described table as one line for its headings and each row; none without rows."""
    heads, _, cells = described.as_texts(t, rows)
    return [*map(" · ".join, [heads, *cells])] if rows else []


def truncation_table(record: Certificate, lang: str = "en") -> Table:
    """Return one row for each number of eigenpairs kept."""
    t, found = load_catalogue(lang), record.truncation
    caption = t("cut.about", radius=floored(found.radius))
    return field_table(t, cut_table(found), found.points, caption)


def certificate_lines(record: Certificate, lang: str = "en") -> list[str]:
    shown, t = displayable(record), load_catalogue(lang)
    proven, scope = statements(t, shown.model, shown), t("proven.scope")
    said = [f"• {item.term}: {item.claim} {scope}: {item.scope}" for item in proven]
    return said + data_notes(t, shown.data)


def attack_tables(record: Attack, lang: str = "en") -> Iterator[Table]:
    """Return one table for each effect, with a row a method and a column a length."""
    t = load_catalogue(lang)
    heads = [f"{t('field.MethodCurve.kind')} \\ ε", *(f">{one:g}" for one in record.epsilons)]
    for columns in zip(*map(effects_at, range(len(record.epsilons))), strict=True):
        title = columns[0].title(t, MethodCurve)
        table = grid(heads, title=title, look="bare", align="left")
        table.padding = (0, 1, 0, 0)
        if all(value_at(curve, columns[0].path) is not None for curve in record.curves):
            for curve in record.curves:
                cells = (column.text(t, MethodCurve, curve) for column in columns)
                add(table, t(f"attack.kind.{curve.kind}"), *cells)
            yield table


def attack_lines(record: Attack, lang: str = "en") -> Iterator[str]:
    t = load_catalogue(lang)
    yield proof_claim(t, record)
    yield from t.each("attack", ("proven", "not_proven"))
    yield from data_read(t, record)
