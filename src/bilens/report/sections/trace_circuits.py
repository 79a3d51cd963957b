"""The card of one circuit: its matrix, its eigenvectors, its agreement, its causal checks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.spectra import eigenvalue_chart
from bilens.report.charts.traces import agreement_points, heat_map, named_points
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, quantity, signed_quantity, whole
from bilens.report.sections.trace_causal import CausalTable, causal_table
from bilens.report.sections.trace_features import (
    FeatureCard,
    feature_card,
    input_anchor,
    token_rows,
)
from bilens.report.sections.trace_layer import circuit_anchor
from bilens.report.svg import Figure
from bilens.report.token_text import latent_name

MOST_ENTRIES = 8  # of each kind; the document has more
Link = tuple[str, str]  # anchor, or nothing; text


@dataclass(frozen=True)
class VectorRow:
    """One eigenvector: the latents closest to it, and its tokens."""

    name: str
    eigenvalue: str
    nearest: list[tuple[Link, str]]
    high: list[tuple[str, str]]
    low: list[tuple[str, str]]


@dataclass(frozen=True)
class EntryRow:
    """One interaction of two input latents, or of one with itself."""

    first: Link
    second: Link
    coefficient: str


@dataclass(frozen=True)
class EntryList:
    """The largest interactions of one kind."""

    caption: str
    rows: list[EntryRow]
    note: str


@dataclass(frozen=True)
class CircuitCard:
    """What the card of one output latent prints."""

    anchor: str
    heading: str
    place: str
    numbers: list[tuple[str, str]]
    drawings: list[tuple[str, Figure]]
    vectors: list[VectorRow]
    entries: list[EntryList]
    causal: CausalTable
    feature: FeatureCard


@dataclass(frozen=True)
class CircuitPainter:
    """Draws circuits; knows the input latents by name."""

    t: Catalogue
    names: dict[int, str]

    @classmethod
    def of(cls, t: Catalogue, document: Document) -> CircuitPainter:
        """Return what draws the circuits of a document."""
        return cls(t, {item["latent"]: latent_name(item) for item in document["input_latents"]})

    def card(self, circuit: dict[str, Any]) -> CircuitCard:
        """Return the card of a circuit."""
        t, anchor = self.t, circuit_anchor(circuit["latent"])
        return CircuitCard(
            anchor=anchor,
            heading=t("trace.circuit.heading", name=latent_name(circuit["output"])),
            place=t("trace.circuit.place", place=whole(circuit["position"])),
            numbers=self.numbers(circuit),
            drawings=[
                self.matrix(circuit),
                self.projections(circuit),
                self.agreement(circuit),
                self.eigenvalues(circuit),
            ],
            vectors=[
                self.vector(row, place)
                for place, row in enumerate(circuit["spectrum"]["eigenvectors"], start=1)
            ],
            entries=[self.entries(circuit, kind) for kind in ("cross", "self")],
            causal=causal_table(t, circuit["causal"]),
            feature=feature_card(t, circuit["output"], f"output-{circuit['latent']}"),
        )

    def name(self, latent: int) -> str:
        """Return an input latent by its number and, where it is described, its nickname."""
        return self.names.get(latent, str(latent))

    def link(self, latent: int) -> Link:
        """Return an input latent with the anchor of its card, where it has one."""
        return (input_anchor(latent) if latent in self.names else "", self.name(latent))

    def optional(self, value: float | None, digits: int = 2) -> str:
        """Return a number, or the word for what is not defined."""
        return self.t("trace.undefined") if value is None else fixed(value, digits)

    def numbers(self, circuit: dict[str, Any]) -> list[tuple[str, str]]:
        """Return what the circuit explains, and how well few eigenvectors do."""
        t, spectrum = self.t, circuit["spectrum"]
        share = circuit["share_of_variance"]
        fit = self.shown_fit(circuit)
        pairs = [
            ("features", whole(len(circuit["features"]))),
            ("share_of_norm", percent(circuit["share_of_norm"])),
            ("share_of_variance", t("trace.undefined") if share is None else percent(share)),
            ("correlation", self.optional(circuit["correlation"])),
            ("explained", percent(spectrum["explained"])),
            ("complete", t(f"trace.circuit.{'proven' if spectrum['complete'] else 'unproven'}")),
            ("num_active", whole(circuit["num_active"])),
            ("r_squared", self.optional(fit["r_squared_active"])),
            ("slope", self.optional(fit["slope"])),
        ]
        return [
            (t(f"trace.circuit.{key}", k=fit["rank"], count=len(spectrum["eigenvalues"])), value)
            for key, value in pairs
        ]

    def shown_fit(self, circuit: dict[str, Any]) -> dict[str, Any]:
        """Return the fit of the number of eigenvectors that the points are drawn for."""
        rank, fits = circuit["points"]["rank"], circuit["fits"]
        found: dict[str, Any] = next((fit for fit in fits if fit["rank"] == rank), fits[-1])
        return found

    def matrix(self, circuit: dict[str, Any]) -> tuple[str, Figure]:
        """Return the interactions between the input latents of a circuit."""
        title, features = self.t("trace.circuit.matrix"), circuit["features"]
        size, matrix = len(features), circuit["matrix"]
        place = max(
            ((m, n) for m in range(size) for n in range(m + 1)),
            key=lambda pair: abs(matrix[pair[0]][pair[1]]),
        )
        text = self.t(
            "trace.circuit.matrix_text",
            first=self.name(features[place[0]]),
            second=self.name(features[place[1]]),
            value=signed_quantity(matrix[place[0]][place[1]]),
        )
        names = [self.name(latent) for latent in features]
        return title, heat_map(title, text, matrix, features, names)

    def projections(self, circuit: dict[str, Any]) -> tuple[str, Figure]:
        """Return the input latents seen along the leading eigenvectors of both signs."""
        t, title = self.t, self.t("trace.circuit.projections")
        values = circuit["spectrum"]["eigenvalues"]
        columns = leading_pair(values[: len(circuit["projections"][0])])
        points = [
            (row[columns[0]], row[columns[1]] if len(columns) > 1 else 0.0)
            for row in circuit["projections"]
        ]
        axes = [
            t("trace.circuit.along", rank=column + 1, value=signed_quantity(values[column]))
            for column in columns
        ]
        axes += [""] * (2 - len(axes))
        names = [self.name(latent) for latent in circuit["features"]]
        text = t(
            "trace.circuit.projections_text",
            name=names[0],
            x=signed_quantity(points[0][0]),
            y=signed_quantity(points[0][1]),
        )
        return title, named_points(title, text, (axes[0], axes[1]), points, names)

    def agreement(self, circuit: dict[str, Any]) -> tuple[str, Figure]:
        """Return the latent against its approximation by few eigenvectors."""
        points, fit, t = circuit["points"], self.shown_fit(circuit), self.t
        title = t("trace.circuit.agreement", k=whole(points["rank"]))
        text = t(
            "trace.circuit.agreement_text",
            whole=self.optional(fit["correlation"]),
            active=self.optional(fit["correlation_active"]),
            null=self.optional(fit["null_correlation_active"]),
        )
        axes = (t("trace.circuit.approximation"), t("trace.circuit.truth"))
        chart = agreement_points(
            title, text, axes, points["approximation"], points["truth"], points["active"]
        )
        return t("trace.circuit.caption", title=title, text=text), chart

    def eigenvalues(self, circuit: dict[str, Any]) -> tuple[str, Figure]:
        """Return the leading eigenvalues."""
        t, spectrum = self.t, circuit["spectrum"]
        values, title = spectrum["eigenvalues"], self.t("trace.circuit.spectrum")
        text = t(
            "trace.circuit.spectrum_text",
            count=whole(len(values)),
            all=whole(spectrum["num_eigenvalues"]),
            first=signed_quantity(values[0]),
            noise=quantity(spectrum["rounding_bound"]),
        )
        axes = (t("trace.circuit.order"), t("trace.circuit.eigenvalue"))
        return title, eigenvalue_chart(title, text, axes, values)

    def vector(self, row: dict[str, Any], place: int) -> VectorRow:
        """Return one eigenvector."""
        return VectorRow(
            name=self.t("trace.circuit.vector", rank=place),
            eigenvalue=signed_quantity(row["eigenvalue"]),
            nearest=[
                (self.link(near["latent"]), fixed(near["cosine"], 2)) for near in row["nearest"]
            ],
            high=token_rows(row["tokens"]["high"]),
            low=token_rows(row["tokens"]["low"]),
        )

    def entries(self, circuit: dict[str, Any], kind: str) -> EntryList:
        """Return the largest interactions of one kind, and how all of them are distributed."""
        found = circuit[f"{kind}_interactions"]
        rows = [
            EntryRow(
                self.link(entry["first"]),
                self.link(entry["second"]),
                signed_quantity(entry["coefficient"]),
            )
            for entry in found["entries"][:MOST_ENTRIES]
        ]
        note = self.t(
            "trace.circuit.entries_note",
            count=whole(found["count"]),
            listed=whole(len(found["entries"])),
            share=percent(found["listed_share"]),
            mean=signed_quantity(found["mean"], 2),
            deviation=quantity(found["standard_deviation"], 2),
        )
        return EntryList(self.t(f"trace.circuit.{kind}"), rows, note)


def leading_pair(values: list[float]) -> list[int]:
    """Return the places of the leading positive and negative eigenvalue, or of the leading two."""
    positive = next((place for place, value in enumerate(values) if value > 0), None)
    negative = next((place for place, value in enumerate(values) if value < 0), None)
    if positive is None or negative is None:
        return list(range(min(2, len(values))))
    return [positive, negative]
