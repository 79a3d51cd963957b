"""The verdict: one overall sentence, and each finding as one sentence with its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, scientific, whole
from bilens.report.rules_document import VERDICT_VALUES
from bilens.report.sections.rules import rule_scope, rule_sentence

OVERALL: Final = {
    "audit": "overall",
    "layer_audit": "layers.overall",
    "table": "table.overall",
}
ICONS: Final = {"pass": "✓", "warn": "!", "fail": "✗", "info": "i"}


@dataclass(frozen=True)
class FindingLine:
    """One finding, in words."""

    outcome: str  # one of ICONS
    icon: str
    word: str
    sentence: str
    scope: str = ""  # what it holds for


def overall_outcome(document: Document) -> str:
    """Return "pass", "warn" or "fail" for the document as a whole."""
    outcomes = [finding["outcome"] for finding in document["verdict"]]
    if not document["passed"] or "fail" in outcomes:
        return "fail"
    return "warn" if "warn" in outcomes else "pass"


def overall_sentence(t: Catalogue, document: Document) -> str:
    """Return the verdict as a whole, of one layer or of many, in words."""
    outcome = overall_outcome(document)
    if any(item["failed"] for item in document.get("conditions") or []):
        return t("overall.conditions")
    return t(f"{OVERALL[document['kind']]}.{outcome}")


def verdict_findings(t: Catalogue, document: Document) -> list[FindingLine]:
    """Return the findings in the order of the document."""
    return [finding_line(t, finding) for finding in document["verdict"]]


def finding_line(t: Catalogue, finding: dict[str, Any]) -> FindingLine:
    """Return one finding in words; one of an unknown rule shows its name and numbers."""
    rule, values = finding["rule"], finding["values"]
    outcome = finding["outcome"] if finding["outcome"] in ICONS else "info"
    known = rule_sentence(t, rule, outcome, values)
    if known is not None:
        word, scope = t(f"outcome.{outcome}"), rule_scope(t, rule)
        return FindingLine(outcome, ICONS[outcome], word, known, scope)
    key = f"verdict.{rule}.{outcome}"
    if rule == "few_directions":
        key += {0: "_none", values["of"]: "_all"}.get(values["k"], "")
    if rule in VERDICT_VALUES and t.has(key):
        sentence = t(key, **filled(rule, values))
    else:
        pairs = ", ".join(f"{name} = {value}" for name, value in values.items())
        sentence = f"{rule}: {pairs}"
    return FindingLine(outcome, ICONS[outcome], t(f"outcome.{outcome}"), sentence)


def filled(rule: str, values: dict[str, Any]) -> dict[str, str]:
    """Return the values of a rule as a reader sees them."""
    if rule == "exact":
        numbers = {key: scientific(values[key]) for key in ("float32", "float64")}
        return {**numbers, "inputs": whole(values["inputs"])}
    if rule == "complete":
        return {
            "residual": scientific(values["residual"]),
            "classes": whole(values["classes"]),
            "incomplete": values["incomplete"],
        }
    if rule == "accuracy":
        shares = {key: percent(values[key]) for key in ("value", "low", "high")}
        return {**shares, "total": whole(values["total"])}
    if rule == "few_directions":
        shares = {key: percent(values[key]) for key in ("accuracy", "full")}
        return {**shares, "k": whole(values["k"]), "of": whole(values["of"])}
    if rule == "overfitting":
        return {key: points(values[key]) for key in ("gap", "threshold")}
    if rule == "trigger":
        places = {key: whole(values[key]) for key in ("row", "column", "side")}
        scores = {key: fixed(values[key], 1) for key in ("score", "threshold")}
        return {**places, **scores, "target": values["target"]}
    counts = {key: whole(values[key]) for key in ("median", "least", "most")}
    return {**counts, "none": values["none"]}


def points(share: float) -> str:
    """Return a share of one in percentage points, without a sign for them."""
    return fixed(100 * share, 1)
