"""The verdict: one overall sentence, and each finding as one sentence with its number."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Final

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
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
    return [finding_line(t, document["kind"], finding) for finding in document["verdict"]]


def finding_line(t: Catalogue, kind: str, finding: dict[str, Any]) -> FindingLine:
    """Return one finding in words; one of an unknown rule shows its name and numbers."""
    name = finding["rule"]
    outcome = finding["outcome"] if finding["outcome"] in ICONS else "info"
    sentence = rule_sentence(t, kind, name, outcome, finding["values"])
    scope = rule_scope(t, kind, name)
    return FindingLine(outcome, ICONS[outcome], t(f"outcome.{outcome}"), sentence, scope)
