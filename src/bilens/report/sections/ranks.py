"""The table of effective ranks."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.report.catalogue import Catalogue
from bilens.report.charts.spectra import rank_strip
from bilens.report.document import Document
from bilens.report.numbers import fixed
from bilens.report.sections.names import class_names
from bilens.report.svg import Figure


@dataclass(frozen=True)
class RankRow:
    """The effective ranks of one class."""

    name: str
    centred: str
    median: str
    interval: str
    strip: Figure
    raw: str
    embedding: str


def rank_rows(t: Catalogue, document: Document) -> list[RankRow]:
    """Return one row for each class; all strips share a scale."""
    readings = document["classes"]
    largest = max(max(r["effective_rank"], r["effective_rank_null"]["high"]) for r in readings)
    rows = []
    for reading, name in zip(readings, class_names(document), strict=True):
        chance = reading["effective_rank_null"]
        rows.append(
            RankRow(
                name,
                fixed(reading["effective_rank"], 1),
                fixed(chance["median"], 1),
                f"{fixed(chance['low'], 1)}–{fixed(chance['high'], 1)}",
                rank_strip(t, reading["effective_rank"], (chance["low"], chance["high"]), largest),
                fixed(reading["effective_rank_raw"], 1),
                fixed(reading["effective_rank_embedding"], 1),
            )
        )
    return rows
