"""Circuits, features and directions of a trace: a card each."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bilens.records.mlp_trace import (
    ActiveContext,
    CausalReading,
    Circuit,
    DirectionReading,
    InteractionEntries,
    LatentReading,
    RankFit,
    ReadEigenvector,
    TokenValue,
    Trace,
    TracedSpectrum,
)
from bilens.report.charts.spectrum_charts import eigenvalue_chart
from bilens.report.charts.traces import agreement_points, heat_map, named_points
from bilens.report.markup import (
    Content,
    Figure,
    card,
    drawings,
    element,
    facts,
    heading,
    heads,
    items,
    joined,
    keyed,
    link,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.text import (
    Catalogue,
    fixed,
    grouped,
    latent_name,
    percent,
    quantity,
    raised,
    signed_quantity,
    token_name,
    visible,
)

ENDS = "first second"  # columns of an interaction
MOST_ENTRIES = 8  # of each kind; the document has more
SHADES = 8  # steps of the colour behind a token
Drawing = tuple[str, Figure]


def circuit_anchor(latent: int) -> str:
    return f"circuit-{latent}"


def defined(t: Catalogue, value: Any, show: Callable[[Any], str] = fixed) -> str:
    """Return a value as a text, or the word for an undefined one."""
    return t("trace.undefined") if value is None else show(value)


def circuits(t: Catalogue, record: Trace, causal: Callable[[CausalReading], Markup]) -> Markup:
    """Return a card for each circuit; `causal` draws its checks."""
    names = {item.latent: latent_name(item) for item in record.input_latents}
    cards = (
        CircuitCard(t, names, one, record.tokens_carry_spaces).markup(causal(one.causal))
        for one in record.circuits
    )
    return section(t, "trace.circuits", paragraph(t("trace.circuits.lead")), *cards)


def features(t: Catalogue, record: Trace) -> Markup:
    """Return a card for each input latent that circuits name."""
    cards = (
        card(
            [latent_name(item), density(t, item)],
            passages(t, item, record.tokens_carry_spaces),
            ends(t, item.tokens.high, item.tokens.low, "like", "unlike"),
            anchor=f"input-{item.latent}",
        )
        for item in record.input_latents
    )
    return section(t, "trace.features", paragraph(t("trace.features.lead")), *cards)


def readings(
    t: Catalogue,
    found: Sequence[DirectionReading],
    page: str = "trace",
    causal: Callable[[CausalReading], Markup] | None = None,
) -> Markup:
    """Return a card for each output direction that is read without autoencoders.

    `causal` draws the checks of those that have some.
    """
    cards = (
        reading_card(t, one, position, causal(one.causal) if causal and one.causal else Markup())
        for position, one in enumerate(found, start=1)
    )
    return section(t, f"{page}.readings", paragraph(t(f"{page}.readings.lead")), *cards)


def reading_card(t: Catalogue, one: DirectionReading, position: int, causal: Markup) -> Markup:
    if one.kind == "hosvd":
        value, share = quantity(one.singular_value or 0.0), percent(one.share or 0.0)
        title = t("trace.reading.hosvd", position=position)
        lead = t("trace.reading.hosvd_lead", value=value, share=share)
    else:
        title = t("trace.reading.token", token=token_name(one.name))
        lead = t("trace.reading.token_lead")
    if one.edges is not None:  # of a converted model
        (low, high), values, title = one.edges, one.spectrum.eigenvalues, one.name
        found = {"beyond": sum(not low <= value <= high for value in values), "count": len(values)}
        null = {"low": signed_quantity(low), "high": signed_quantity(high), **found}
        lead = t("trace.reading.null", lead=lead, **null)
    return card(
        [title, lead],
        ends(t, one.output.high, one.output.low, "promotes", "suppresses"),
        eigenvectors(t, one.spectrum.eigenvectors),
        drawings([eigenvalues(t, one.spectrum)]),
        causal,
        anchor=f"reading-{position}",
    )


def density(t: Catalogue, item: LatentReading) -> str:
    """Return how often and how strongly a latent is active."""
    share, largest = percent(item.density, 2), raised(item.largest)
    return t("trace.feature.density", share=share, largest=largest)


def passages(t: Catalogue, item: LatentReading, spaced: bool) -> Markup:
    """Return the stretches of text around the strongest activations."""
    if not item.contexts:
        return quiet(t("trace.feature.never_active"))
    class_ = "passage" if spaced else "passage apart"
    rows = (
        element(
            "li",
            element("span", quantity(context.activations[context.peak]), class_="strength"),
            element("span", *pieces(context, item.largest), class_=class_),
        )
        for context in item.contexts
    )
    return element("ol", *rows, class_="passages")


def pieces(context: ActiveContext, largest: float) -> Iterator[str]:
    """Yield the tokens of a context, shaded by activation; dots where the text began earlier."""
    if context.start > 0:
        yield "…"
    pairs = zip(context.tokens, context.activations, strict=True)
    for position, (token, value) in enumerate(pairs):
        class_ = title = None
        if strength := shade(value, largest):
            class_ = f"s{strength} peak" if position == context.peak else f"s{strength}"
            title = quantity(value, 2)
        yield element("span", visible(token), class_=class_, title=title)


def shade(value: float, largest: float) -> int:
    """Return how strongly a token is coloured: 0 where the latent is not active."""
    if value <= 0 or largest <= 0:
        return 0
    return max(1, min(SHADES, round(SHADES * value / largest)))


def tokens(found: Sequence[TokenValue]) -> Markup:
    rows = (
        joined(
            element("span", token_name(one.text), class_="token"),
            element("span", signed_quantity(one.value, 2), class_="quiet"),
        )
        for one in found
    )
    return items(rows, "token-list")


def ends(
    t: Catalogue, high: Sequence[TokenValue], low: Sequence[TokenValue], first: str, second: str
) -> Markup:
    """Return the tokens at both ends of a direction, side by side."""
    sides = (
        element("div", heading(t(f"trace.feature.{key}"), 4), tokens(found))
        for key, found in ((first, high), (second, low))
    )
    return element("div", *sides, class_="pair")


def eigenvectors(
    t: Catalogue, found: Sequence[ReadEigenvector], named: Callable[[int], Markup] | None = None
) -> Markup:
    """Return eigenvectors as tokens, and as the latents closest to them where these are `named`."""
    keys = "one_end other_end" if named is None else "nearest one_end other_end"
    columns = heads(t("trace.circuit.vector_column"), "λ", *keyed(t, "trace.circuit", keys, keys))
    rows = []
    for rank, one in enumerate(found, start=1):
        value = signed_quantity(one.eigenvalue)
        cells: list[Content] = [t("trace.circuit.vector", rank=rank), value]
        if named is not None:
            near = (
                joined(named(item.latent), element("span", fixed(item.cosine, 2), class_="quiet"))
                for item in one.nearest
            )
            cells.append(items(near, "token-list"))
        rows.append([*cells, tokens(one.tokens.high), tokens(one.tokens.low)])
    return table(t, t("trace.circuit.vectors"), columns, rows, class_="reading-vectors")


def eigenvalues(t: Catalogue, spectrum: TracedSpectrum) -> Drawing:
    values, title = spectrum.eigenvalues, t("trace.circuit.spectrum")
    text = t(
        "trace.circuit.spectrum_text",
        count=grouped(len(values)),
        all=grouped(spectrum.num_eigenvalues),
        first=signed_quantity(values[0]),
        noise=quantity(spectrum.rounding_bound),
    )
    axes = (t("trace.circuit.order"), t("trace.circuit.eigenvalue"))
    return title, eigenvalue_chart((title, text), axes, values)


@dataclass(frozen=True)
class CircuitCard:
    """The card of one circuit; knows the input latents by name."""

    t: Catalogue
    names: dict[int, str]
    circuit: Circuit
    spaced: bool  # whether tokens may start with a space

    def markup(self, causal: Markup) -> Markup:
        """Return matrix, eigenvectors, agreement, text and causal checks."""
        t, one, output = self.t, self.circuit, self.circuit.output
        title = t("trace.circuit.heading", name=latent_name(output))
        position = t("trace.circuit.position", position=grouped(one.position))
        spectrum = eigenvalues(t, one.spectrum)
        pictures = [self.matrix(), self.projections(), self.agreement(), spectrum]
        lists = (
            self.entries("cross", one.cross_interactions),
            self.entries("self", one.self_interactions),
        )
        return card(
            [title, position, density(t, output)],
            facts(self.numbers(), "numbers"),
            drawings(pictures),
            eigenvectors(t, one.spectrum.eigenvectors, self.link),
            element("div", *lists, class_="pair"),
            ends(t, output.tokens.high, output.tokens.low, "promotes", "suppresses"),
            heading(t("trace.feature.contexts"), 4),
            passages(t, output, self.spaced),
            causal,
            anchor=circuit_anchor(one.latent),
        )

    def name(self, latent: int) -> str:
        """Return an input latent by its number and, where it is described, its nickname."""
        return self.names.get(latent, str(latent))

    def link(self, latent: int) -> Markup:
        """Return an input latent, linked to its card where it has one."""
        return link(f"input-{latent}" if latent in self.names else "", self.name(latent))

    def shown_fit(self) -> RankFit:
        """Return the fit of the number of eigenvectors that the points are drawn for."""
        rank, fits = self.circuit.points.rank, self.circuit.fits
        return next((fit for fit in fits if fit.rank == rank), fits[-1])

    def numbers(self) -> Iterator[tuple[str, str]]:
        """Yield what the circuit explains, and how well few eigenvectors do."""
        t, one, fit = self.t, self.circuit, self.shown_fit()
        proven = "proven" if one.spectrum.complete else "unproven"
        for key, value in (
            ("features", grouped(len(one.features))),
            ("share_of_norm", percent(one.share_of_norm)),
            ("share_of_variance", defined(t, one.share_of_variance, percent)),
            ("correlation", defined(t, one.correlation)),
            ("explained", percent(one.spectrum.explained)),
            ("complete", t(f"trace.circuit.{proven}")),
            ("num_active", grouped(one.num_active)),
            ("r_squared", defined(t, fit.r_squared_active)),
            ("slope", defined(t, fit.slope)),
        ):
            count = len(one.spectrum.eigenvalues)
            yield t(f"trace.circuit.{key}", k=fit.rank, count=count), value

    def matrix(self) -> Drawing:
        title, found, matrix = self.t("trace.circuit.matrix"), self.circuit, self.circuit.matrix
        m, n = max(
            ((m, n) for m in range(len(matrix)) for n in range(m + 1)),
            key=lambda pair: abs(matrix[pair[0]][pair[1]]),
        )
        text = self.t(
            "trace.circuit.matrix_text",
            first=self.name(found.features[m]),
            second=self.name(found.features[n]),
            value=signed_quantity(matrix[m][n]),
        )
        names = [self.name(latent) for latent in found.features]
        return title, heat_map((title, text), matrix, found.features, names)

    def projections(self) -> Drawing:
        """Return the input latents seen along the leading eigenvectors of both signs."""
        t, title, rows = self.t, self.t("trace.circuit.projections"), self.circuit.projections
        values = self.circuit.spectrum.eigenvalues
        columns = leading_pair(values[: len(rows[0])])
        points = [(row[columns[0]], row[columns[1]] if len(columns) > 1 else 0.0) for row in rows]
        axes = [
            t("trace.circuit.along", rank=column + 1, value=signed_quantity(values[column]))
            for column in columns
        ]
        axes += [""] * (2 - len(axes))
        names = [self.name(latent) for latent in self.circuit.features]
        x, y = map(signed_quantity, points[0])
        text = t("trace.circuit.projections_text", name=names[0], x=x, y=y)
        return title, named_points((title, text), (axes[0], axes[1]), points, names)

    def agreement(self) -> Drawing:
        """Return the latent against its approximation by few eigenvectors."""
        points, fit, t = self.circuit.points, self.shown_fit(), self.t
        title = t("trace.circuit.agreement", k=grouped(points.rank))
        text = t(
            "trace.circuit.agreement_text",
            whole=defined(t, fit.correlation),
            active=defined(t, fit.correlation_active),
            null=defined(t, fit.null_correlation_active),
        )
        axes = (t("trace.circuit.approximation"), t("trace.circuit.truth"))
        values = points.approximation, points.truth, points.active
        chart = agreement_points((title, text), axes, *values)
        return t("trace.circuit.caption", title=title, text=text), chart

    def entries(self, kind: str, found: InteractionEntries) -> Markup:
        """Return the largest interactions of one kind, and how all of them are distributed."""
        t, columns = self.t, keyed(self.t, "trace.circuit", "first second coefficient", ENDS)
        rows = (
            (self.link(one.first), self.link(one.second), signed_quantity(one.coefficient))
            for one in found.entries[:MOST_ENTRIES]
        )
        body = table(t, t(f"trace.circuit.{kind}"), columns, rows, named=())
        note = t(
            "trace.circuit.entries_note",
            count=grouped(found.count),
            listed=grouped(len(found.entries)),
            share=percent(found.listed_share),
            mean=signed_quantity(found.mean, 2),
            deviation=quantity(found.standard_deviation, 2),
        )
        return element("div", body, quiet(note))


def leading_pair(values: Sequence[float]) -> list[int]:
    """Return the indices of the leading positive and negative eigenvalue, or of the leading two."""
    positive = next((index for index, value in enumerate(values) if value > 0), None)
    negative = next((index for index, value in enumerate(values) if value < 0), None)
    if positive is None or negative is None:
        return list(range(min(2, len(values))))
    return [positive, negative]
