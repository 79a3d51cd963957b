"""How few directions are enough: a curve and a short table."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import truncation_chart
from bilens.report.document import Document
from bilens.report.numbers import percent, whole
from bilens.report.svg import Figure

SHOWN = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # rows of the table, with the marked and the last one


@dataclass(frozen=True)
class TruncationRow:
    """Accuracy with k eigenvectors."""

    k: str
    accuracy: str
    agreement: str
    marked: bool


@dataclass(frozen=True)
class TruncationSection:
    """What the section prints."""

    chart: Figure
    rows: list[TruncationRow]


def truncation_section(t: Catalogue, document: Document) -> TruncationSection | None:
    """Return curve and table; None if no data were given."""
    points = document["truncation"]
    if not points:
        return None
    mark = next((f["values"] for f in document["verdict"] if f["rule"] == "few_directions"), None)
    last = points[-1]["k"]
    kept = {*SHOWN, last, *([mark["k"]] if mark else [])}
    rows = [
        TruncationRow(
            whole(point["k"]),
            percent(point["accuracy"]),
            percent(point["agreement"]),
            mark is not None and point["k"] == mark["k"],
        )
        for point in points
        if point["k"] in kept
    ]
    chart = truncation_chart(
        t,
        [(point["k"], point["accuracy"]) for point in points],
        [(point["k"], point["agreement"]) for point in points],
        (mark["k"], mark["accuracy"]) if mark else None,
    )
    return TruncationSection(chart, rows)
