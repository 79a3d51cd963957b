"""The page of a classifier of one layer: its classes, their ranks, and how few directions do."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from bilens.records.audit import Audit, ClassReading, Eigenvector
from bilens.report.blocks import (
    Column,
    Row,
    callout,
    card,
    facts,
    figure,
    link,
    paragraph,
    section,
    table,
    vector_image,
)
from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import truncation_chart
from bilens.report.charts.spectra import rank_strip, spectrum_chart
from bilens.report.numbers import (
    decimals,
    fixed,
    percent,
    quantity,
    scientific,
    signed_quantity,
    whole,
)
from bilens.report.page import Page
from bilens.report.raster import Painter, colour_bar
from bilens.report.sections.difference import difference
from bilens.report.sections.overview import class_names, model_facts
from bilens.report.sections.predictions import predictions
from bilens.report.sections.proven import proven
from bilens.report.sections.verdict import accuracy, exactness, guide, verdict
from bilens.report.sections.warnings import warnings
from bilens.report.svg import element, joined

STRONGEST = 3  # inputs named under a strip
SHOWN = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # rows of the table, with the marked and the last one
CONVENTIONS = ("order", "sign", "basis", "centring", "precision", "null")


def audit_page(t: Catalogue, record: Audit) -> Page:
    """Return the page of the audit of a classifier."""
    painter = Painter.of(
        record.model.input_shape,
        (pair.vector for one in record.classes for pair in (*one.positive, *one.negative)),
    )
    found = record.guarantees
    more = t("proven.more" if found else "proven.none")
    return Page(
        keys="page",
        footer="footer.document",
        title=record.source.path or record.model.kind,
        count=len(record.classes),
        facts=model_facts(t, record),
        parts=(
            ("verdict", joined(verdict(t, record), guide(t))),
            ("exactness", exactness(t, record)),
            ("accuracy", accuracy(t, record)),
            ("classes", classes(t, record, painter)),
            ("ranks", ranks(t, record)),
            ("truncation", truncation(t, record)),
            ("predictions", predictions(t, record, painter)),
            ("warnings", warnings(t, record)),
            ("proven", proven(t, record.exactness, record.model, found, more, "proof")),
            ("difference", difference(t, record.difference, class_names(record.model), painter)),
        ),
        conventions=conventions(t, record),
        limits=limits(t, record),
        styles=("layers.css",),
    )


def classes(t: Catalogue, record: Audit, painter: Painter) -> Markup:
    """Return one card for each class."""
    names = class_names(record.model)
    index = (
        element("li", link(f"class-{one.index}", name))
        for one, name in zip(record.classes, names, strict=True)
    )
    return section(
        "classes",
        t("classes.heading"),
        paragraph(
            element("strong", t("classes.centred.term")),
            t("sentence.gap"),
            t("classes.centred.text"),
        ),
        legend(t, painter),
        element("nav", element("ul", *index), class_="class-index", aria_label=t("classes.index")),
        *(
            class_card(t, one, name, painter)
            for one, name in zip(record.classes, names, strict=True)
        ),
    )


def legend(t: Catalogue, painter: Painter) -> Markup:
    """Return the colour bar with its ends."""
    end = fixed(painter.scale, decimals([painter.scale], 2))
    low, high = f"−{end}", f"+{end}"
    alt = t("classes.scale_label", low=low, high=high)
    bar = element(
        "div",
        element("span", f"≤ {low}"),
        element("img", src=colour_bar(), alt=alt, width=220, height=14),
        element("span", f"≥ {high}"),
        class_="scale",
    )
    caption = element("figcaption", t("classes.scale", scale=end), class_="quiet")
    how = paragraph(element("strong", t("classes.how")), class_="how")
    return element("div", how, element("figure", bar, caption), class_="legend")


def class_card(t: Catalogue, one: ClassReading, name: str, painter: Painter) -> Markup:
    """Return the card of one class: spectrum, eigenvectors, numbers."""
    null, edges = one.effective_rank_null, (one.lower_edge, one.upper_edge)
    significant = (one.significant_positive, one.significant_negative)
    rank = t(
        "classes.rank_short",
        rank=fixed(one.effective_rank, 1),
        low=fixed(null.low, 1),
        high=fixed(null.high, 1),
    )
    beyond = t("classes.beyond_short", positive=significant[0], negative=significant[1])
    sides = (
        tiles(t, one, one.positive, name, painter, "for"),
        tiles(t, one, one.negative, name, painter, "against"),
    )
    reading = (
        figure(spectrum_chart(t, name, one.eigenvalues, edges, significant)),
        element("div", *sides, class_="vectors"),
        facts(numbers(t, one), "numbers"),
    )
    heading = t("classes.class", name=one.name.strip() or name)
    body = element("div", *reading, class_="reading")
    return card([heading, rank, beyond], body, anchor=f"class-{one.index}")


def tiles(
    t: Catalogue,
    one: ClassReading,
    pairs: tuple[Eigenvector, ...],
    name: str,
    painter: Painter,
    side: str,
) -> Markup:
    """Return the leading eigenvectors of one sign as images."""
    title = element("h4", t(f"classes.{side}", name=name))
    if pairs:
        content = element("ul", *(tile(t, one, pair, name, painter) for pair in pairs))
    else:
        content = paragraph(t(f"classes.none_{side}"), class_="quiet")
    sign = {"for": "positive", "against": "negative"}[side]
    return element("div", title, content, class_=f"tiles {sign}")


def tile(t: Catalogue, one: ClassReading, pair: Eigenvector, name: str, painter: Painter) -> Markup:
    """Return one eigenvector of a class."""
    value, size = signed_quantity(pair.eigenvalue), pair.subspace_size
    beyond = not one.lower_edge <= pair.eigenvalue <= one.upper_edge
    lines = [
        vector_image(painter, pair.vector, t("classes.alt", name=name, value=value)),
        element("span", f"λ = {value}", class_="lambda"),
        element("span", t("classes.share", share=percent(pair.explained)), class_="quiet"),
        element("span", t("classes.beyond" if beyond else "classes.within"), class_="mark"),
    ]
    if painter.is_strip:
        lines.append(element("span", strongest(t, pair.vector), class_="quiet"))
    if size > 1:
        lines.append(element("span", t("classes.subspace", count=size), class_="caution"))
    return element("li", *lines, class_="beyond" if beyond else "within")


def strongest(t: Catalogue, vector: tuple[float, ...]) -> str:
    """Return the inputs with the largest components, counted from 1."""
    order = sorted(range(len(vector)), key=lambda index: -abs(vector[index]))[:STRONGEST]
    named = [
        t("classes.strongest_item", index=index + 1, value=signed_quantity(vector[index], 2))
        for index in order
    ]
    return t("classes.strongest", list=t("list.comma").join(named))


def numbers(t: Catalogue, one: ClassReading) -> Iterator[tuple[str, str]]:
    """Yield the numbers of a class that its card does not show as a picture."""
    null, residual = one.effective_rank_null, scientific(one.largest_residual)
    if not one.complete:
        residual = f"{residual} ({t('classes.unchecked')})"
    edges = f"{signed_quantity(one.upper_edge)} / {signed_quantity(one.lower_edge)}"
    interval = f"{fixed(null.median, 2)} ({fixed(null.low, 2)}–{fixed(null.high, 2)})"
    linear = f"{quantity(one.linear_norm)} / {signed_quantity(one.constant)}"
    for key, value in (
        ("significant", f"{one.significant_positive} / {one.significant_negative}"),
        ("edges", edges),
        ("p", f"{quantity(one.p_upper, 2)} / {quantity(one.p_lower, 2)}"),
        ("rank", fixed(one.effective_rank, 2)),
        ("rank_null", interval),
        ("norm", quantity(one.frobenius_norm)),
        ("linear", linear),
        ("residual", residual),
    ):
        yield t(f"classes.{key}"), value


def ranks(t: Catalogue, record: Audit) -> Markup:
    """Return the table of effective ranks; all strips share a scale."""
    largest = max(max(one.effective_rank, one.effective_rank_null.high) for one in record.classes)
    rows = []
    for one, name in zip(record.classes, class_names(record.model), strict=True):
        null = one.effective_rank_null
        interval = f"({fixed(null.low, 1)}–{fixed(null.high, 1)})"
        rows.append(
            (
                name,
                element("strong", fixed(one.effective_rank, 1)),
                joined(fixed(null.median, 1), " ", element("span", interval, class_="quiet")),
                rank_strip(t, one.effective_rank, (null.low, null.high), largest),
                fixed(one.effective_rank_raw, 1),
                fixed(one.effective_rank_embedding, 1),
            )
        )
    columns = [
        Column(t("ranks.class"), numeric=False),
        Column(t("ranks.centred")),
        Column(t("ranks.null")),
        Column(t("ranks.picture"), numeric=False),
        Column(t("ranks.raw")),
        Column(t("ranks.embedding"), class_="apart"),
    ]
    bases = element(
        "tr",
        element("td", ""),
        element("th", t("ranks.input_basis"), scope="colgroup", colspan=4),
        element("th", t("ranks.embedding_basis"), scope="colgroup", class_="apart"),
    )
    caption = t("ranks.caption")
    explained = joined(caption, " ", element("span", f"({t('ranks.legend')})", class_="quiet"))
    return section(
        "ranks",
        t("ranks.heading"),
        paragraph(t("ranks.lead")),
        table(t, explained, columns, rows, class_="ranks", label=caption, above=bases),
        callout(t, t("ranks.embedding_note.term"), t("ranks.embedding_note.text")),
    )


def truncation(t: Catalogue, record: Audit) -> Markup:
    """Return how few directions are enough, as curve and table; a remark without data."""
    points = record.truncation
    if not points:
        none = paragraph(t("truncation.none"), class_="callout")
        return section("truncation", t("truncation.heading"), none)
    values = next((f.values for f in record.verdict if f.rule == "few_directions"), None)
    mark = None if values is None else (int(values["k"]), float(values["accuracy"]))
    kept = {*SHOWN, points[-1].k, *([] if mark is None else [mark[0]])}
    rows = (
        Row(
            (whole(point.k), percent(point.accuracy), percent(point.agreement)),
            "marked" if mark is not None and point.k == mark[0] else None,
        )
        for point in points
        if point.k in kept
    )
    chart = truncation_chart(
        t,
        [(point.k, point.accuracy) for point in points],
        [(point.k, point.agreement) for point in points],
        mark,
    )
    columns = [Column(t(f"truncation.{key}")) for key in ("k", "accuracy", "agreement")]
    pair = figure(chart), table(t, t("truncation.caption"), columns, rows)
    return section(
        "truncation",
        t("truncation.heading"),
        paragraph(t("truncation.lead")),
        element("div", *pair, class_="curve-and-table"),
    )


def conventions(t: Catalogue, record: Audit) -> list[tuple[str, str]]:
    """Return the conventions behind the numbers: a word and what it means."""
    samples = record.null_samples
    values = {
        "samples": whole(samples),
        "seed": record.seed,
        "count": whole(samples + 1),
        "smallest": quantity(1 / (samples + 1), 1),
    }
    return [
        (t(f"reproduce.{key}.term"), t(f"reproduce.{key}.text", **values)) for key in CONVENTIONS
    ]


def limits(t: Catalogue, record: Audit) -> list[str]:
    """Return what the report does not say, one sentence each."""
    return [
        t("scope.layer"),
        t("scope.no_data" if record.data is None else "scope.data"),
        t("scope.null", samples=whole(record.null_samples)),
        t("scope.multiple", ends=whole(2 * len(record.classes))),
        t("scope.meaning"),
        t("scope.judgement"),
    ]
