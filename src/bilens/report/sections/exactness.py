"""Is the reading exact: one row for each precision."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.report.catalogue import Catalogue
from bilens.report.document import Document
from bilens.report.numbers import scientific, whole
from bilens.report.sections.verdict import ICONS


@dataclass(frozen=True)
class PrecisionRow:
    """One line of the table."""

    precision: str
    largest: str
    relative: str
    tolerance: str
    outcome: str
    icon: str
    word: str


@dataclass(frozen=True)
class ExactnessSection:
    """What the section prints."""

    inputs: str
    rows: list[PrecisionRow]
    spectra: str


def exactness_section(t: Catalogue, document: Document) -> ExactnessSection:
    """Return the differences between model and formula, and whether spectra are complete."""
    rows = []
    for item in document["exactness"]:
        outcome = "pass" if item["passed"] else "fail"
        key = f"exactness.{item['precision']}"
        rows.append(
            PrecisionRow(
                t(key) if t.has(key) else item["precision"],
                scientific(item["largest_error"]),
                scientific(item["relative_error"]),
                scientific(item["tolerance"], 0),
                outcome,
                ICONS[outcome],
                t(f"outcome.{outcome}"),
            )
        )
    inputs = whole(document["exactness"][0]["num_inputs"])
    return ExactnessSection(inputs, rows, completeness(t, document))


def completeness(t: Catalogue, document: Document) -> str:
    """Return the sentence on whether every eigenvalue was found."""
    worst = scientific(max(reading["largest_residual"] for reading in document["classes"]))
    names = [reading["name"] for reading in document["classes"] if not reading["complete"]]
    if names:
        return t("exactness.incomplete", names=t.listing(names), residual=worst)
    inputs = whole(document["model"]["d_input"])
    return t("exactness.complete", inputs=inputs, residual=worst)
