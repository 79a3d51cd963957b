"""The short report for a terminal: one table row for each class, and the lines of the verdict."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from bilens.records.base import displayable
from bilens.report.catalogue import load_catalogue
from bilens.report.document import Document
from bilens.report.numbers import fixed, signed_quantity
from bilens.report.sections.conditions import condition_lines
from bilens.report.sections.verdict import (
    ICONS,
    overall_outcome,
    overall_sentence,
    verdict_findings,
)


def audit_table(document: Document, lang: str = "en") -> Table:
    """Return one row for each class: effective ranks beside chance, and both ends of the spectrum.

    Args:
        document: a checked audit document.
        lang: "en" or "ja".
    """
    t = load_catalogue(lang)
    table = Table(caption=t("terminal.caption"), caption_justify="left", pad_edge=False)
    table.add_column(t("terminal.class"), overflow="fold")
    for key in ("rank", "chance", "embedding", "significant", "largest", "smallest"):
        table.add_column(t(f"terminal.{key}"), justify="right")
    for reading in displayable(document["classes"]):
        chance = reading["effective_rank_null"]
        values = reading["eigenvalues"] or [0.0]
        table.add_row(
            Text(reading["name"]),  # a name is never read as markup
            fixed(reading["effective_rank"], 1),
            f"{fixed(chance['low'], 1)}–{fixed(chance['high'], 1)}",
            fixed(reading["effective_rank_embedding"], 1),
            f"{reading['significant_positive']} / {reading['significant_negative']}",
            signed_quantity(max(values)),
            signed_quantity(min(values)),
        )
    return table


def summary_lines(document: Document, lang: str = "en") -> list[str]:
    """Return every finding, with accuracy and exactness among them, and then the verdict.

    The lines are plain text: print them without reading markup.
    """
    t = load_catalogue(lang)
    asked = {key: document[key] for key in ("kind", "verdict", "passed", "conditions")}
    shown = displayable(asked)
    findings = [*verdict_findings(t, shown), *condition_lines(t, shown)]
    lines = [f"{finding.icon} {finding.word}: {finding.sentence}" for finding in findings]
    if document["accuracy"] is None:
        lines.append(f"{ICONS['info']} {t('terminal.no_accuracy')}")
    return [*lines, f"{ICONS[overall_outcome(shown)]} {overall_sentence(t, shown)}"]
