"""The conditions that were asked for, and how each ended."""

from __future__ import annotations

from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import quantity
from bilens.report.sections.verdict import ICONS, FindingLine


def condition_lines(t: Catalogue, document: Document) -> list[FindingLine]:
    """Return each condition as a finding; none where no condition was asked for."""
    return [condition_line(t, item) for item in document.get("conditions") or []]


def condition_line(t: Catalogue, item: dict[str, Any]) -> FindingLine:
    """Return one condition in words."""
    outcome = "fail" if item["failed"] else "pass"
    if item["value"] is None:
        sentence = t("conditions.unjudged", condition=item["condition"])
    else:
        key = f"conditions.{outcome}"
        sentence = t(key, condition=item["condition"], value=quantity(item["value"], 4))
    return FindingLine(outcome, ICONS[outcome], t(f"outcome.{outcome}"), sentence)
