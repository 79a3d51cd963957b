"""A layer read without autoencoders: output directions and their eigenvectors as tokens."""

from __future__ import annotations

from dataclasses import dataclass

from bilens.report.catalogue import Catalogue
from bilens.report.charts.spectra import eigenvalue_chart
from bilens.report.document import Document
from bilens.report.numbers import percent, quantity, signed_quantity, whole
from bilens.report.sections.trace_circuits import VectorRow
from bilens.report.sections.trace_features import token_rows
from bilens.report.svg import Figure
from bilens.report.token_text import token_name


@dataclass(frozen=True)
class ReadingCard:
    """One output direction."""

    anchor: str
    heading: str
    lead: str
    high: list[tuple[str, str]]
    low: list[tuple[str, str]]
    chart: Figure
    caption: str
    vectors: list[VectorRow]


def reading_cards(t: Catalogue, document: Document) -> list[ReadingCard]:
    """Return a card for each output direction."""
    cards = []
    for place, reading in enumerate(document["readings"], start=1):
        spectrum = reading["spectrum"]
        values = spectrum["eigenvalues"]
        text = t(
            "trace.circuit.spectrum_text",
            count=whole(len(values)),
            all=whole(spectrum["num_eigenvalues"]),
            first=signed_quantity(values[0]),
            noise=quantity(spectrum["rounding_bound"]),
        )
        title = t("trace.circuit.spectrum")
        axes = (t("trace.circuit.order"), t("trace.circuit.eigenvalue"))
        if reading["kind"] == "hosvd":
            heading = t("trace.reading.hosvd", place=place)
            lead = t(
                "trace.reading.hosvd_lead",
                value=quantity(reading["singular_value"]),
                share=percent(reading["share"]),
            )
        else:
            heading = t("trace.reading.token", token=token_name(reading["name"]))
            lead = t("trace.reading.token_lead")
        cards.append(
            ReadingCard(
                anchor=f"reading-{place}",
                heading=heading,
                lead=lead,
                high=token_rows(reading["output"]["high"]),
                low=token_rows(reading["output"]["low"]),
                chart=eigenvalue_chart(title, text, axes, values),
                caption=title,
                vectors=[
                    VectorRow(
                        name=t("trace.circuit.vector", rank=rank),
                        eigenvalue=signed_quantity(row["eigenvalue"]),
                        nearest=[],
                        high=token_rows(row["tokens"]["high"]),
                        low=token_rows(row["tokens"]["low"]),
                    )
                    for rank, row in enumerate(spectrum["eigenvectors"], start=1)
                ],
            )
        )
    return cards
