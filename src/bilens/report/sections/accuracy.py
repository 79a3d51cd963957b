"""How often the model is right, and on which data."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import accuracy_bar
from bilens.report.document import Document
from bilens.report.numbers import percent, whole
from bilens.report.svg import Figure


@dataclass(frozen=True)
class AccuracySection:
    """What the section prints."""

    value: str
    right: str
    interval: str
    chart: Figure
    source: str
    is_embedded: bool


def accuracy_section(t: Catalogue, document: Document) -> AccuracySection | None:
    """Return accuracy, interval and source; None if no data were given."""
    share, data = document["accuracy"], document["data"]
    if share is None:
        return None
    low, high = percent(share["low"]), percent(share["high"])
    source = "" if data is None else data["source"].strip().rstrip(".")
    return AccuracySection(
        value=percent(share["value"]),
        right=t("accuracy.right", right=whole(share["right"]), total=whole(share["total"])),
        interval=t("accuracy.interval", low=low, high=high),
        chart=accuracy_bar(t, share["value"], share["low"], share["high"]),
        source=t("accuracy.source", source=source) if source else "",
        is_embedded=data is not None and data["source_kind"] == "embedded",
    )
