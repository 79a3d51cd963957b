"""The verdict on many layers in words: one sentence for each rule."""

from __future__ import annotations

from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.layer_audit_document import EVERY_RULE, RULE_SCOPES, RULE_VALUES
from bilens.report.numbers import fixed, percent, quantity, whole
from bilens.report.sections.verdict import ICONS, FindingLine, finding_line

SHARES = {"dominant_inputs": ("value", "chance", "threshold"), "low_rank": ("value", "threshold")}
THREE = ("r2", "duplicate_units")


def layer_findings(t: Catalogue, document: Document) -> list[FindingLine]:
    """Return the findings in the order of the document."""
    return [layer_finding(t, finding) for finding in document["verdict"]]


def layer_finding(t: Catalogue, finding: dict[str, Any]) -> FindingLine:
    """Return one finding in words; one of another kind of audit says what it says there."""
    rule, values = finding["rule"], finding["values"]
    outcome = finding["outcome"] if finding["outcome"] in ICONS else "info"
    key = f"layers.verdict.{rule}.{outcome}"
    if rule == "r2" and values["approximate"] == 0:
        key += "_exact"
    if rule not in RULE_VALUES or not t.has(key):
        return finding_line(t, finding)
    scope = t(f"layers.scope.{RULE_SCOPES[rule]}")
    sentence = t(key, **words(finding))
    return FindingLine(outcome, ICONS[outcome], t(f"outcome.{outcome}"), sentence, scope)


def words(finding: dict[str, Any]) -> dict[str, str]:
    """Return the values of a rule as a reader sees them."""
    rule, values = finding["rule"], finding["values"]
    names = {*EVERY_RULE, *RULE_VALUES[rule]}
    return {name: shown(rule, name, values[name]) for name in names}


def shown(rule: str, name: str, value: float | str) -> str:
    """Return one value of a rule as a reader sees it."""
    if isinstance(value, str):
        return value
    if name in SHARES.get(rule, ()):
        return percent(value)
    if rule in THREE and not isinstance(value, int):
        return fixed(value, 3)
    return whole(value) if isinstance(value, int) else quantity(value)
