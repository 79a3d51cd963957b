"""The page of a certificate: the tables behind the proven statements."""

from __future__ import annotations

from collections.abc import Iterator

from markupsafe import Markup

from bilens.records.guarantees import Certificate, EuclideanRadii, TruncationGuarantees
from bilens.report.blocks import Column, Row, callout, figure, paragraph, quiet, section, table
from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import radii_chart
from bilens.report.numbers import percent, quantity, signed_quantity, whole
from bilens.report.page import Page
from bilens.report.sections.overview import class_names, input_name, model_facts
from bilens.report.sections.proven import (
    box,
    floored,
    floored_percent,
    proven,
    raised,
    rounding_numbers,
    up,
)
from bilens.report.svg import element

ROWS = 10  # steps of the table of certified accuracy
LISTED = 20  # unused inputs
LIMITS = ("model", "data", "meaning", "right")


def certificate_page(t: Catalogue, record: Certificate) -> Page:
    """Return the page of a certificate."""
    return Page(
        keys="certify",
        footer="certify.footer",
        title=record.source.path or record.model.kind,
        count=len(record.model.output_names),
        facts=model_facts(t, record),
        parts=(
            ("proven", proven(t, record.exactness, record.model, record, "", "verdict")),
            ("radii", radii(t, record)),
            ("truncation", truncation(t, record.truncation)),
            ("inputs", input_use(t, record)),
            ("rounding", rounding(t, record)),
        ),
        limits=[t(f"limits.certify.{key}") for key in LIMITS],
    )


def columns(names: list[str]) -> list[Column]:
    """Return columns of numbers behind one of names."""
    return [Column(name, numeric=index > 0) for index, name in enumerate(names)]


def radii(t: Catalogue, record: Certificate) -> Markup:
    """Return curve, tables and notes of the distances; a remark if no data were given."""
    found = record.l2
    if found is None:
        none = paragraph(t("radii.none"), class_="callout")
        return section("radii", t("radii.heading"), none)
    step = max((len(found.curve) - 1) // ROWS, 1)
    shares = (
        (quantity(point.radius), floored_percent(point.share)) for point in found.curve[::step]
    )
    curve = [(point.radius, point.share) for point in found.curve]
    pair = (
        figure(radii_chart(t, curve, found.median)),
        table(
            t,
            t("radii.caption"),
            [Column(t("radii.size")), Column(t("radii.share"))],
            shares,
        ),
    )
    statuses = (
        (t(f"radii.{status}") if t.has(f"radii.{status}") else status, whole(count))
        for status, count in found.statuses.items()
        if count
    )
    return section(
        "radii",
        t("radii.heading"),
        paragraph(t("radii.lead")),
        element("div", *pair, class_="curve-and-table"),
        *radii_notes(t, record, found),
        table(
            t,
            t("radii.statuses", total=whole(found.num_inputs)),
            columns([t("radii.status"), t("radii.count")]),
            statuses,
        ),
    )


def radii_notes(t: Catalogue, record: Certificate, found: EuclideanRadii) -> Iterator[Markup]:
    """Yield what holds within the range of inputs, and where every entry may change."""
    examples, inside = whole(found.num_examples), whole(found.num_examples_in_box)
    inside_box = t("radii.box_text", examples=examples, inside=inside)
    yield callout(t, t("radii.box", **box(record)), inside_box)
    bounds = record.linf
    if bounds is None:
        return
    medians = ((bounds.median_lower, floored), (bounds.median_upper, raised))
    lower, upper = (
        t("radii.unlimited") if value is None else show(value) for value, show in medians
    )
    text = t(
        "radii.linf.text",
        total=whole(bounds.num_inputs),
        lower=lower,
        upper=upper,
        restarts=whole(bounds.restarts),
        steps=whole(bounds.steps),
    )
    yield callout(t, t("radii.linf.term"), text)


def truncation(t: Catalogue, cut: TruncationGuarantees) -> Markup:
    """Return one row for each number of eigenvectors kept, and how k was chosen."""
    keys = ["bound", "least"]
    rows, notes = [], []
    with_data = cut.points[0].certified is not None
    if with_data:
        keys += ["certified", "agreement", "mean", "deviation"]
        level = percent(cut.level, 0)
        if cut.chosen_by == "agreement":
            notes.append(t("cut.chosen", k=whole(cut.chosen or 0), level=level))
        elif cut.chosen is None:
            notes.append(t("cut.not_enough", level=level))
        notes.append(t("cut.note"))
    for point in cut.points:
        cells = [whole(point.k), raised(max(point.bounds)), raised(min(point.bounds))]
        if with_data:
            cells += [
                floored_percent(point.certified or 0.0),
                percent(point.agreement or 0.0),
                signed_quantity(max(point.mean or (0.0,), key=abs)),
                quantity(max(point.deviation or (0.0,))),
            ]
        rows.append(Row(cells, "marked" if point.k == cut.chosen else None))
    names = columns([t("truncation.k"), *(t(f"cut.{key}") for key in keys)])
    return section(
        "truncation",
        t("cut.heading"),
        paragraph(t("cut.lead", radius=floored(cut.radius, 6))),
        table(t, t("cut.caption"), names, rows),
        *map(quiet, notes),
    )


def input_use(t: Catalogue, record: Certificate) -> Markup:
    """Return the inputs that are proven unused, and the strongest input of each class."""
    names = class_names(record.model)
    rows = (
        (
            names[item.output],
            input_name(t, record.model, item.input),
            raised(item.bound),
            floored(item.reached),
        )
        for item in record.input_use.influence
    )
    keys = ("class", "input", "bound", "reached")
    return section(
        "inputs",
        t("use.heading"),
        paragraph(unused_inputs(t, record)),
        table(t, t("use.caption"), columns([t(f"use.{key}") for key in keys]), rows),
    )


def unused_inputs(t: Catalogue, record: Certificate) -> str:
    """Return the inputs that are proven unused, or nothing."""
    unused, named = record.input_use.unused, record.model.input_names is not None
    if not unused:
        return ""
    names = [
        input_name(t, record.model, index) if named else whole(index) for index in unused[:LISTED]
    ]
    if len(unused) > LISTED:
        names.append(t("use.more", count=whole(len(unused) - LISTED)))
    return t("use.unused", list=t("list.comma").join(names))


def rounding(t: Catalogue, record: Certificate) -> Markup:
    """Return one row for each format that weights can be stored in."""
    rows, nothing = [], t("round.nothing")
    for item in record.stability:
        if item.refused is not None:
            rows.append([item.kind, *[nothing] * 4])
            continue
        numbers = rounding_numbers(item)
        angle = t("round.degrees", angle=raised(numbers.angle, 2))
        rows.append(
            [
                item.kind,
                raised(numbers.movement, 2),
                percent(up(numbers.share, 3), 2),
                t("round.count", count=whole(numbers.guaranteed), total=whole(numbers.total)),
                angle if numbers.guaranteed else nothing,
            ]
        )
    keys = ("kind", "movement", "share", "guaranteed", "angle")
    return section(
        "rounding",
        t("round.heading"),
        paragraph(t("round.lead")),
        table(t, t("round.caption"), columns([t(f"round.{key}") for key in keys]), rows),
    )
