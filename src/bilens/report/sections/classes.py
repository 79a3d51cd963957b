"""The page of a classifier of one layer: its classes, few directions, and what may be wrong."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup
from msgspec import structs

from bilens.records.audit import Audit
from bilens.records.class_readings import ClassReading, ClassReadings, Eigenvector
from bilens.report.charts.curves import truncation_chart
from bilens.report.charts.spectrum_charts import rank_strip, spectrum_chart
from bilens.report.markup import (
    Figure,
    Row,
    boxed,
    callout,
    card,
    element,
    facts,
    figure,
    heading,
    items,
    joined,
    keyed_table,
    link,
    paragraph,
    quiet,
    section,
    vector_image,
)
from bilens.report.raster import Painter, colour_bar
from bilens.report.sections.overview import Page, Parts, class_names, class_painter, model_facts
from bilens.report.sections.people import class_labels
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import (
    Catalogue,
    fixed,
    floored,
    grouped,
    percent,
    quantity,
    scientific,
    signed_quantity,
)

MOST_CARDS = 100  # classes that are drawn; the table and the document have them all
STRONGEST = 3  # inputs named under a strip
SHOWN = (0, 1, 2, 3, 5, 10, 20, 50, 100)  # rows of the table, with the marked and the last one
CONVENTIONS = ("order", "sign", "basis", "centring", "precision", "null")


def class_page(t: Catalogue, record: Audit, found: ClassReadings, parts: Parts) -> Page:
    samples = grouped(record.null_samples)
    numbers = {"samples": samples, "seed": record.seed, "count": grouped(record.null_samples + 1)}
    numbers["smallest"] = floored(1 / (record.null_samples + 1), 2)
    known = "no_data" if record.data is None else "data"
    limits = ("layer", known, "null", "multiple", "meaning", "judgement")
    return Page(
        keys="page",
        count=len(found.readings),
        facts=model_facts(t, record),
        parts=parts,
        conventions=[
            (t(f"reproduce.{key}.term"), t(f"reproduce.{key}.text", **numbers))
            for key in CONVENTIONS
        ],
        limits=t.each("scope", limits, ends=grouped(2 * len(found.readings)), samples=samples),
        styles=("layers.css",),
    )


def classes(t: Catalogue, record: Audit, found: ClassReadings) -> Markup:
    """Return the colour bar with its ends, and a card for each class: of very many, for some."""
    painter = class_painter(record)
    named = [*zip(found.readings, class_names(record), strict=True)]
    count, some = len(named), Markup("")
    if count > MOST_CARDS:
        some = quiet(t("classes.some", shown=grouped(MOST_CARDS), count=grouped(count)))
        named.sort(key=lambda one: (sum(beyond_null(one[0])), one[0].frobenius_norm))
        named = sorted(named[-MOST_CARDS:], key=lambda one: one[0].index)
    low, high = f"−{painter.end}", f"+{painter.end}"
    alt = t("classes.scale_label", low=low, high=high)
    bar = element(
        "div",
        element("span", f"≤ {low}"),
        element("img", src=colour_bar(), alt=alt, width=220, height=14),
        element("span", f"≥ {high}"),
        class_="scale",
    )
    caption = element("figcaption", t("classes.scale", scale=painter.end), class_="quiet")
    how = paragraph(element("strong", t("classes.how")), class_="how")
    term, text = t.each("classes.centred", ("term", "text"))
    index = items(link(f"class-{one.index}", name) for one, name in named)
    return section(
        t,
        "classes",
        paragraph(element("strong", term), t("sentence.gap"), text),
        element("div", how, element("figure", bar, caption), class_="legend"),
        some,
        element("nav", index, class_="class-index", aria_label=t("classes.index")),
        *(class_card(t, record, one, name, painter) for one, name in named),
    )


def beyond_null(one: ClassReading) -> tuple[int, int]:
    return one.significant_positive, one.significant_negative


def class_card(
    t: Catalogue, record: Audit, one: ClassReading, name: str, painter: Painter
) -> Markup:
    null, said = one.effective_rank_null, class_labels(record, one.index)
    rank = t(
        "classes.rank_short",
        rank=fixed(one.effective_rank, 1),
        low=fixed(null.low, 1),
        high=fixed(null.high, 1),
    )
    counts = dict(zip(("positive", "negative"), beyond_null(one), strict=True))
    sides = []
    for key, sign, pairs in (
        ("for", "positive", one.positive),
        ("against", "negative", one.negative),
    ):
        title = heading(t(f"classes.{key}", name=name), 4)
        if pairs:
            tiles = (
                tile(t, one, pair, name, painter, said.get((sign, place), ""))
                for place, pair in enumerate(pairs)
            )
            content = element("ul", *tiles)
        else:
            content = quiet(t(f"classes.none_{key}"))
        sides.append(element("div", title, content, class_=f"tiles {sign}"))
    reading = (
        figure(class_spectrum(t, one, name)),
        element("div", *sides, class_="vectors"),
        facts(numbers(t, one), "numbers"),
    )
    head = t("classes.class", name=name)
    body = element("div", *reading, class_="reading")
    return card(
        [head, rank, t("classes.beyond_short", **counts)], body, anchor=f"class-{one.index}"
    )


def class_spectrum(t: Catalogue, one: ClassReading, name: str) -> Figure:
    """Draw the eigenvalues of a class, with the edges of its null."""
    edges = one.lower_edge, one.upper_edge
    return spectrum_chart(t, name, one.eigenvalues, edges, beyond_null(one))


def tile(
    t: Catalogue, one: ClassReading, pair: Eigenvector, name: str, painter: Painter, label: str
) -> Markup:
    """Return one eigenvector of a class; of a strip, also the inputs with the largest entries.

    Its label is what people call it.
    """
    value, size, vector = signed_quantity(pair.eigenvalue), pair.subspace_size, pair.vector
    beyond = not one.lower_edge <= pair.eigenvalue <= one.upper_edge
    lines = [
        vector_image(painter, vector, t("classes.alt", name=name, value=value)),
        *([element("q", label)] if label else []),
        element("span", f"λ = {value}", class_="lambda"),
        element("span", t("classes.share", share=percent(pair.explained)), class_="quiet"),
        element("span", t("classes.beyond" if beyond else "classes.within"), class_="mark"),
    ]
    if painter.is_strip:
        order = sorted(range(len(vector)), key=lambda index: -abs(vector[index]))[:STRONGEST]
        named = t("list.comma").join(
            t("classes.strongest_item", index=index + 1, value=signed_quantity(vector[index], 2))
            for index in order
        )
        lines.append(element("span", t("classes.strongest", list=named), class_="quiet"))
    if size > 1:
        lines.append(element("span", t("classes.subspace", count=size), class_="caution"))
    return element("li", *lines, class_="beyond" if beyond else "within")


def numbers(t: Catalogue, one: ClassReading) -> Iterator[tuple[str, str]]:
    """Yield the numbers of a class that its card does not show as a picture."""
    null, residual = one.effective_rank_null, scientific(one.largest_residual)
    if not one.complete:
        residual = f"{residual} ({t('classes.unchecked')})"
    for key, value in (
        ("significant", f"{one.significant_positive} / {one.significant_negative}"),
        ("edges", f"{signed_quantity(one.upper_edge)} / {signed_quantity(one.lower_edge)}"),
        ("p", f"{quantity(one.p_upper, 2)} / {quantity(one.p_lower, 2)}"),
        ("rank", fixed(one.effective_rank, 2)),
        ("rank_null", f"{fixed(null.median, 2)} ({fixed(null.low, 2)}–{fixed(null.high, 2)})"),
        ("norm", quantity(one.frobenius_norm)),
        ("linear", f"{quantity(one.linear_norm)} / {signed_quantity(one.constant)}"),
        ("residual", residual),
    ):
        yield t(f"classes.{key}"), value


def ranks(t: Catalogue, record: Audit, found: ClassReadings) -> Markup:
    """Return the table of effective ranks; all strips share a scale."""
    caption = t("ranks.caption")
    explained = joined(caption, " ", element("span", f"({t('ranks.legend')})", class_="quiet"))
    body = class_table(found.readings).on_page(
        t, class_rows(record), caption=explained, class_="ranks"
    )
    lead, about = paragraph(t("ranks.lead")), callout(t, "ranks.embedding_note")
    return section(t, "ranks", lead, body, about)


def class_rows(record: Audit) -> list[ClassReading]:
    """Return the readings of all classes, by the names that they are shown with."""
    readings = () if record.classes is None else record.classes.readings
    named = zip(readings, class_names(record), strict=True)
    return [structs.replace(one, name=name) for one, name in named]


def class_table(readings: Sequence[ClassReading]) -> FieldTable:
    """Return the columns of the table of classes; on pages ranks are drawn on one scale."""
    ends = (max(one.effective_rank, one.effective_rank_null.high) for one in readings)
    largest = max(ends, default=1.0)

    def strip(t: Catalogue, one: ClassReading) -> Figure:
        null = one.effective_rank_null
        return rank_strip(t, one.effective_rank, (null.low, null.high), largest)

    return FieldTable(
        ClassReading,
        (
            FieldColumn("name", numeric=False),
            FieldColumn("effective_rank", strong=True),
            FieldColumn("effective_rank_null"),
            FieldColumn("index", drawn=strip, numeric=False, where="page", heading="ranks.picture"),
            FieldColumn("effective_rank_raw", where="page"),
            FieldColumn("effective_rank_embedding", class_="apart"),
            FieldColumn("significant_positive", beyond_ends, where="text"),
            FieldColumn("eigenvalues", largest_value, where="text", heading="ranks.largest"),
            FieldColumn("eigenvalues", smallest_value, where="text", heading="ranks.smallest"),
        ),
        "ranks.caption",
    )


def beyond_ends(_: Catalogue, one: ClassReading) -> str:
    return "{} / {}".format(*beyond_null(one))


def largest_value(_: Catalogue, one: ClassReading) -> str:
    return signed_quantity(max(one.eigenvalues))


def smallest_value(_: Catalogue, one: ClassReading) -> str:
    return signed_quantity(min(one.eigenvalues))


def truncation(t: Catalogue, record: Audit, found: ClassReadings) -> Markup:
    """Return how few directions are enough, as curve and table; a remark without data."""
    curve = found.truncation
    if not curve:
        return section(t, "truncation", boxed(t("truncation.none")))
    mark = enough(record)
    marked = None if mark is None else mark[0]
    rows = (
        Row(
            (grouped(point.k), percent(point.accuracy), percent(point.agreement)),
            "marked" if point.k == marked else None,
        )
        for point in curve
        if point.k in {*SHOWN, curve[-1].k, marked}
    )
    numbers = keyed_table(t, "truncation", "k accuracy agreement", rows, words="")
    pair = figure(truncation_figure(t, record, found)), numbers
    lead = paragraph(t("truncation.lead"))
    return section(t, "truncation", lead, element("div", *pair, class_="curve-and-table"))


def enough(record: Audit) -> tuple[int, float] | None:
    """Return how many eigenvectors keep the accuracy, and that; None where it is not known."""
    values = next((f.values for f in record.verdict if f.rule == "few_directions"), None)
    return None if values is None else (int(values["k"]), float(values["accuracy"]))


def truncation_figure(t: Catalogue, record: Audit, found: ClassReadings) -> Figure:
    accuracy = [(point.k, point.accuracy) for point in found.truncation]
    agreement = [(point.k, point.agreement) for point in found.truncation]
    return truncation_chart(t, accuracy, agreement, enough(record))
