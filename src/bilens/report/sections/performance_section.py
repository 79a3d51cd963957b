"""Predictions of data that were given: right answers, calibration, mistakes, R² on these data."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.common import DataOrigin, ModelReading, Share
from bilens.records.performance import Classification, Performance
from bilens.report.charts.curves import residual_chart, share_charts
from bilens.report.markup import (
    Content,
    boxed,
    callout,
    drawings,
    element,
    heading,
    items,
    keyed_table,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.raster import Painter
from bilens.report.sections.overview import clean_names, data_source, told_value
from bilens.report.text import NONE, Catalogue, fixed, grouped, percent, quantity

DRAWN = 12  # mistakes in a report; the explorer draws all that are kept


def performance(t: Catalogue, audit: Audit, _: ModelReading) -> Markup:
    """Return scores and mistakes of the predictions; a remark if no data were given."""
    found, data = audit.performance, audit.data
    if found is None or data is None:
        seen = data is not None or audit.text is not None
        return section(t, "performance", boxed(t(f"performance.{'seen' if seen else 'none'}")))
    first, *notes = performance_lines(t, found)
    parts: list[Content] = [paragraph(first), *([items(notes, "sentences")] if notes else [])]
    if data.source_kind == "embedded":
        parts.append(callout(t, "performance.embedded"))
    parts.append(quiet(t("performance.source", source=data_source(t, data))))
    if found.classification is not None:
        parts += classification(t, found, found.classification)
    if found.regression is not None and found.regression.residuals:
        chart = residual_chart(t, found.regression.residuals)
        parts.append(drawings([(chart.title, chart)]))
    if found.mistakes:
        parts += mistake_table(t, found, DRAWN)
    if found.approximation:
        parts += approximation(t, found)
    return section(t, "performance", *parts)


def performance_lines(t: Catalogue, found: Performance) -> list[str]:
    """Return how good predictions are in one sentence, and what was done to the data."""
    rows, numbers = grouped(found.rows), found.regression
    line = t("performance.unlabelled", rows=rows)
    if found.classification is not None:
        line = t("performance.answers", rows=rows, share=interval(found.classification.accuracy))
    elif numbers is not None:
        sizes = {key: quantity(getattr(numbers, key), 4) for key in ("rmse", "mae", "spread")}
        line = t("performance.numbers", rows=rows, r_squared=score(numbers.r_squared), **sizes)
    kind = found.rows_seen
    seen = [t(f"performance.seen.{kind}", trained=found.trained)] if kind else []
    return [line, *seen, *data_notes(t, found)]


def data_notes(t: Catalogue, found: Performance | DataOrigin | None) -> list[str]:
    """Return how data were read: what was done to them, or taken for granted."""
    notes = () if found is None else found.notes
    told = ({name: told_value(value) for name, value in one.values.items()} for one in notes)
    return [
        t(f"performance.note.{one.kind}", **values) for one, values in zip(notes, told, strict=True)
    ]


def score(value: float | None) -> str:
    return NONE if value is None else fixed(value, 3, -1)


def interval(share: Share | None) -> str:
    if share is None:
        return NONE
    low, high = percent(share.low, toward=-1), percent(share.high, toward=1)
    return f"{percent(share.value)} ({low} – {high})"


def classification(t: Catalogue, found: Performance, answers: Classification) -> Iterator[Markup]:
    names = clean_names(found.names)
    rows: list[Sequence[Content]] = []
    for name, one in zip(names, answers.classes, strict=True):
        count = 0 if one.recall is None else one.recall.total
        shares = [interval(one.recall), interval(one.precision)]
        rows.append([name, grouped(count), *shares, score(one.auc), score(one.average_precision)])
    yield keyed_table(t, "performance.classes", "class rows recall precision auc ap", rows)
    if answers.confusion:
        rows = []  # a count on a bar of its share of a row, in tenths: blue for right answers
        for row, (name, counts) in enumerate(zip(names, answers.confusion, strict=True)):
            tenths = [round(10 * count / (sum(counts) or 1)) for count in counts]
            kinds = ["right" if row == column else "wrong" for column in range(len(counts))]
            looks = [f"{kind} tenths-{part}" for kind, part in zip(kinds, tenths, strict=True)]
            bars = zip(counts, looks, strict=True)
            rows.append([name, *(element("span", grouped(n), class_=look) for n, look in bars)])
        columns = [t("performance.confusion.corner"), *names]
        yield table(t, t("performance.confusion.caption"), columns, rows, class_="heat")
    yield heading(t("performance.calibration.heading"))
    ece, null = percent(answers.ece), percent(answers.ece_null)
    brier = fixed(answers.brier, 3)
    yield paragraph(t("performance.calibration.lead", ece=ece, null=null, brier=brier))
    charts = ((chart.title, chart) for chart in share_charts(t, answers, names))
    yield drawings(charts, "drawings shares")


def mistake_table(t: Catalogue, found: Performance, most: int | None = None) -> Iterator[Markup]:
    """Yield how many answers are wrong, and the most confident ones; or the largest errors."""
    drawn, answers = found.mistakes[:most], found.classification
    wrong = found.rows if answers is None else answers.accuracy.total - answers.accuracy.right
    counts = {"rows": found.rows, "wrong": wrong, "shown": len(drawn)}
    said = {name: grouped(count) for name, count in counts.items()}
    yield paragraph(
        t(f"performance.mistakes.{'numbers' if answers is None else 'answers'}", **said)
    )
    names, rows = clean_names(found.names), list[list[Content]]()
    shape = found.image_shape
    painter = None if shape is None else Painter(shape[0], shape[1], 1.0)
    for one in drawn:
        row, pair = one.name or grouped(one.index), (one.target, one.predicted)
        last = quantity(one.target - one.predicted, 4)
        texts = [quantity(value, 4) for value in pair]
        if one.confidence is not None:
            last, texts = percent(one.confidence), [names[int(value)] for value in pair]
        rows.append([row, *texts, last])
        if painter is not None and one.image is not None:
            alt = t("performance.mistakes.alt", row=row)
            picture = painter.image(one.image)
            rows[-1].insert(1, element("img", class_="input", src=picture, alt=alt, width=72))
    pictured = painter is not None and found.mistakes[0].image is not None
    keys = "row image target predicted " if pictured else "row target predicted "
    keys += "residual" if found.regression else "confidence"
    yield keyed_table(t, "performance.mistakes", keys, rows)


def approximation(t: Catalogue, found: Performance) -> Iterator[Markup]:
    """Yield R² on these data: a column for each layer, the classes below each other."""
    layers = found.approximation
    rows = [
        [t(f"performance.approximation.{key}"), *(score(getattr(one, key)) for one in layers)]
        for key in ("r_squared", "fitted")
    ]
    for index, name in enumerate(clean_names(found.names) if layers[0].classes else ()):
        title = t("performance.approximation.class", name=name)
        rows.append([title, *(score(one.classes[index]) for one in layers)])
    columns = [t("performance.approximation.of"), *(one.layer for one in layers)]
    yield heading(t("performance.approximation.heading"))
    yield paragraph(t("performance.approximation.lead"))
    yield table(t, t("performance.approximation.caption"), columns, rows)
