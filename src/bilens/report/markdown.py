"""An audit as Markdown for a pull request: verdict, conditions, difference, how to reproduce."""

import re
from collections.abc import Iterable, Iterator, Sequence

from bilens.records.audit import Audit
from bilens.records.base import Record, displayable
from bilens.records.layer_readings import Difference
from bilens.records.network_reading import NetworkReading
from bilens.report.sections.coverage import unread_lines
from bilens.report.sections.decision_page import decision_lines, group_lines
from bilens.report.sections.difference import (
    TENSORS,
    change_sentences,
    headline_lines,
    largest_changes,
)
from bilens.report.sections.inventory_section import inventory_lines
from bilens.report.sections.layers import (
    LAYER_CHANGES,
    LAYERS,
    change_lead,
    change_rows,
    layer_rows,
)
from bilens.report.sections.network_page import network_parts
from bilens.report.sections.overview import AnyReport, FindingLine, condition_lines, mark, run_facts
from bilens.report.sections.people import people_lines
from bilens.report.sections.performance_section import data_notes, performance_lines
from bilens.report.tables import FieldTable, TableRow
from bilens.report.text import MARKS, Catalogue, load_catalogue

MOST_LAYERS = 40  # rows of a table; a comment has a limit
SPECIAL = re.compile(r"([\\`*_\[\]|~])")  # what matters inside a line
ENTITIES = {"&": "&amp;", "<": "&lt;", ">": "&gt;"}
BREAK = "\u200b"  # a space of no width: no name becomes a mention, no text a link


def audit_markdown(original: Audit, lang: str = "en") -> str:
    t, record = load_catalogue(lang), displayable(original)
    parts = [
        f"## bilens audit: {escaped(record.source.path or record.model.kind)}",
        *(f"**{escaped(line)}**" for line in headline_lines(t, record)),
        f"### {t('verdict.heading')}",
        "\n".join(f"- {escaped(line)}" for line in decision_lines(t, record)),
    ]
    for line in group_lines(t, record):
        parts.append(f"### {line.question} {line.badge}")
        parts.append(escaped(line.text))
        if line.findings:
            parts.append(finding_table(t, line.findings))
    if unread := [f"- {escaped(line)}" for line in unread_lines(t, record.coverage)]:
        parts.append("\n".join(unread))
    if record.inventory is not None:
        lines = [f"- {escaped(line)}" for line in inventory_lines(t, record.inventory)]
        parts += [f"### {t('inventory.heading')}", "\n".join(lines)]
    if record.conditions:
        parts += [f"### {t('conditions.heading')}", finding_table(t, condition_lines(t, record))]
    for title, lines in people_lines(t, record):
        parts += [f"### {title}", "\n".join(f"- {escaped(line)}" for line in lines)]
    if record.difference is not None:
        parts += difference_parts(t, record, record.difference)
    if record.layers is not None and record.layers.readings:
        rows = layer_rows(t, record.layers)[:MOST_LAYERS]
        shown = field_table(t, LAYERS, rows)
        summary = f"<summary>{t('layers.table.caption')}</summary>"
        parts.append(f"<details>{summary}\n\n{shown}\n\n</details>")
    if record.performance is not None:
        parts += map(escaped, performance_lines(t, record.performance))
    elif record.layers is not None:
        parts += map(escaped, data_notes(t, record.data))
    return "\n\n".join([*parts, *reproduce_parts(t, record, original)]) + "\n"


def reproduce_parts(t: Catalogue, record: AnyReport, original: AnyReport) -> Iterator[str]:
    run = run_facts(record, original)
    keys = [key for key in run if key not in ("file", "data", "hardware")]
    again = [f"- {escaped(t(f'reproduce.{key}'))}: {code(run[key])}" for key in keys]
    yield from (f"### {t('reproduce.heading')}", "\n".join(again))


def network_markdown(original: NetworkReading, lang: str = "en") -> str:
    """Return the reading of a network as Markdown: the parts of its page."""
    t, record = load_catalogue(lang), displayable(original, MARKS)
    parts = [f"## bilens read: {escaped(record.source.path or record.model.kind)}"]
    for part in network_parts(t, record):
        parts.append(f"### {t(f'network.{part.name}.heading')}")
        parts.append("\n".join(f"- {escaped(line)}" for line in part.sentences))
        if part.table is not None and part.rows:
            parts.append(field_table(t, part.table, part.rows))
    return "\n\n".join([*parts, *reproduce_parts(t, record, original)]) + "\n"


def escaped(text: str) -> str:
    """Return a text that Markdown and HTML show as it is, on one line."""
    plain = SPECIAL.sub(r"\\\1", " ".join(text.split()))
    plain = plain.replace("@", f"@{BREAK}").replace("://", f":{BREAK}//")
    return "".join(ENTITIES.get(character, character) for character in plain)


def code(text: str) -> str:
    """Return a text as code on one line, whatever backticks it holds."""
    line = " ".join(text.split())
    longest = max((len(run) for run in re.findall("`+", line)), default=0)
    fence = "`" * (longest + 1)
    space = " " if longest else ""
    return f"{fence}{space}{line}{space}{fence}"


def table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Return a table; heads and cells are escaped here."""
    first, *lines = ([escaped(cell) for cell in cells] for cells in (head, *rows))
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (first, ["---"] * len(head), *lines))


def field_table(t: Catalogue, described: FieldTable, rows: Iterable[TableRow | Record]) -> str:
    """Return a described table."""
    heads, _, cells = described.as_texts(t, rows)
    return table(heads, cells)


def finding_table(t: Catalogue, findings: Sequence[FindingLine]) -> str:
    """Return one row for each finding."""
    rows = ((mark(t, item.outcome), item.sentence) for item in findings)
    return table((t("markdown.outcome"), t("markdown.finding")), rows)


def difference_parts(t: Catalogue, record: Audit, found: Difference) -> Iterator[str]:
    yield f"### {t('layers.difference.heading')}"
    yield escaped(t("sentence.gap").join(change_sentences(t, record)))
    if found.whole is not None and (rows := largest_changes(found.whole, MOST_LAYERS)):
        yield field_table(t, TENSORS, rows)
    if found.layers:
        yield escaped(change_lead(t, found))
    changed = [layer for layer in found.layers if not layer.identical]
    if changed:
        yield field_table(t, LAYER_CHANGES, change_rows(t, changed[:MOST_LAYERS]))
    if len(changed) > MOST_LAYERS:
        yield escaped(t("markdown.more", count=len(changed) - MOST_LAYERS))
