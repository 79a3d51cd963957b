"""The short report for a terminal: one table row for each class, and the lines of the verdict."""

from __future__ import annotations

from rich.table import Table
from rich.text import Text

from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.document import Document, displayable
from bilens.report.numbers import fixed, percent, scientific, signed, whole
from bilens.report.sections.verdict import OVERALL_ICONS, overall_outcome, verdict_findings


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
        chance = reading["effective_rank_chance"]
        values = reading["eigenvalues"] or [0.0]
        table.add_row(
            Text(reading["name"]),  # a name is never read as markup
            fixed(reading["effective_rank"], 1),
            f"{fixed(chance['low'], 1)}–{fixed(chance['high'], 1)}",
            fixed(reading["effective_rank_embedding"], 1),
            f"{reading['significant_positive']} / {reading['significant_negative']}",
            signed(max(values)),
            signed(min(values)),
        )
    return table


def summary_lines(document: Document, lang: str = "en") -> list[str]:
    """Return accuracy, exactness and verdict as plain lines (print them without markup)."""
    t = load_catalogue(lang)
    shown = displayable({key: document[key] for key in document if key not in ("explanations",)})
    outcome = overall_outcome(document)
    lines = [accuracy_line(t, shown), exactness_line(t, shown)]
    for finding in verdict_findings(t, shown):
        lines.append(f"{finding.icon} {finding.word}: {finding.sentence}")
    lines.append(f"{OVERALL_ICONS[outcome]} {t(f'overall.{outcome}')}")
    return lines


def accuracy_line(t: Catalogue, document: Document) -> str:
    """Return the accuracy with its interval, or that no data were given."""
    share, data = document["accuracy"], document["data"]
    if share is None:
        return t("terminal.no_accuracy")
    return t(
        "terminal.accuracy",
        value=percent(share["value"]),
        low=percent(share["low"]),
        high=percent(share["high"]),
        total=whole(share["total"]),
        data="" if data is None else data["name"],
    )


def exactness_line(t: Catalogue, document: Document) -> str:
    """Return the relative residuals in both precisions."""
    parts = [
        f"{item['precision']} {scientific(item['relative_error'])}"
        for item in document["exactness"]
    ]
    return t("terminal.exactness", parts=", ".join(parts))
