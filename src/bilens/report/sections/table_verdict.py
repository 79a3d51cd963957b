"""The verdict on a model of a table in words: one sentence for each rule."""

from __future__ import annotations

from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, scientific, whole
from bilens.report.rules_document import TABLE_VALUES
from bilens.report.sections.verdict import ICONS, FindingLine


def table_findings(t: Catalogue, document: Document) -> list[FindingLine]:
    """Return the findings in the order of the document."""
    return [table_finding(t, finding) for finding in document["verdict"]]


def table_finding(t: Catalogue, finding: dict[str, Any]) -> FindingLine:
    """Return one finding in words; one of an unknown rule shows its name and numbers."""
    rule, values = finding["rule"], finding["values"]
    outcome = finding["outcome"] if finding["outcome"] in ICONS else "info"
    key = f"table.verdict.{rule}.{outcome}"
    if rule in TABLE_VALUES and t.has(key):
        sentence = t(key, **words(rule, values))
    else:
        pairs = ", ".join(f"{name} = {value}" for name, value in values.items())
        sentence = f"{rule}: {pairs}"
    return FindingLine(outcome, ICONS[outcome], t(f"outcome.{outcome}"), sentence)


def words(rule: str, values: dict[str, Any]) -> dict[str, str]:
    """Return the values of a rule as a reader sees them."""
    if rule == "exact":
        return {"error": scientific(values["error"]), "inputs": whole(values["inputs"])}
    if rule == "seen_rows":
        return {}
    if rule == "shares":
        return {name: percent(value, 0) for name, value in values.items()}
    numbers = {name: value for name, value in values.items() if name != "total"}
    shown = percent if rule == "accuracy" else fixed
    return {
        **{name: shown(value) for name, value in numbers.items()},
        "total": whole(values["total"]),
    }
