"""The terminal table of a table audit: the strongest columns and pairs of each output."""

from __future__ import annotations

from typing import Any

from rich.table import Table

from bilens.cli.tables.cells import plain
from bilens.records.base import displayable
from bilens.report.catalogue import load_catalogue
from bilens.report.sections.table_verdict import table_findings
from bilens.report.sections.verdict import ICONS, overall_outcome

SHOWN = 4


def column_table(document: dict[str, Any]) -> Table:
    """Return the strongest columns and pairs of every output."""
    unit = "standardised columns" if document["model"]["standardised"] else "columns as they come"
    table = Table(
        caption=f"Coefficients of {unit}: b z + q z² for a column, 2q z z′ for a pair; sorted by "
        "the standard deviation that they bring.",
        caption_justify="left",
    )
    for name in ("output", "column", "b", "q", "pair", "2q"):
        table.add_column(name, justify="right" if name in ("b", "q", "2q") else "left")
    names = [plain(name) for name in document["model"]["input_names"]]
    for item in document["outputs"]:
        count = max(min(SHOWN, len(item["columns"])), min(SHOWN, len(item["pairs"])))
        for place in range(count):
            column = item["columns"][place] if place < len(item["columns"]) else None
            pair = item["pairs"][place] if place < len(item["pairs"]) else None
            table.add_row(
                plain(item["name"]) if place == 0 else "",
                "" if column is None else names[column["column"]],
                "" if column is None else f"{column['linear']:+.4g}",
                "" if column is None else f"{column['square']:+.4g}",
                "" if pair is None else f"{names[pair['first']]} × {names[pair['second']]}",
                "" if pair is None else f"{pair['coefficient']:+.4g}",
                end_section=place == count - 1,
            )
    return table


def column_lines(document: dict[str, Any]) -> list[str]:
    """Return every finding, and then the verdict."""
    t = load_catalogue("en")
    findings = table_findings(t, displayable({"verdict": document["verdict"]}))
    outcome = overall_outcome(document)
    return [
        *(f"{finding.icon} {finding.word}: {finding.sentence}" for finding in findings),
        f"{ICONS[outcome]} {t(f'table.overall.{outcome}')}",
    ]
