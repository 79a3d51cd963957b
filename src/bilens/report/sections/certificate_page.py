"""The guarantees: a statement for each, and the tables behind them on a page."""

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

from markupsafe import Markup

from bilens.records.common import Exactness, ModelSummary
from bilens.records.guarantees import (
    Certificate,
    EuclideanRadii,
    Guarantees,
    RoundingStability,
    TruncationGuarantee,
    TruncationGuarantees,
)
from bilens.report.charts.curves import radii_chart
from bilens.report.markup import (
    boxed,
    callout,
    element,
    facts,
    figure,
    heading,
    keyed_table,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.sections.overview import Page, clean_names, input_name, model_facts
from bilens.report.sections.performance_section import data_notes
from bilens.report.tables import FieldColumn, FieldTable, TableRow
from bilens.report.text import (
    MINUS,
    Catalogue,
    floored,
    grouped,
    percent,
    quantity,
    raised,
    scientific,
    signed_quantity,
)

ROWS = 10  # steps of the table of certified accuracy
LISTED = 20  # unused inputs
LIMITS = ("model", "data", "meaning", "right")
Proven = Guarantees | Certificate


@dataclass(frozen=True)
class Statement:
    term: str
    claim: str
    assumes: str
    scope: str


def certificate_page(t: Catalogue, record: Certificate) -> Page:
    read = t("sentence.gap").join(data_notes(t, record.data))
    return Page(
        keys="certify",
        count=len(record.model.output_names),
        facts=model_facts(t, record),
        parts=(
            ("proven", proven(t, record.exactness, record.model, record, read, "verdict")),
            ("radii", radii(t, record)),
            ("truncation", truncation(t, record.truncation)),
            ("inputs", input_use(t, record)),
            ("rounding", rounding(t, record)),
        ),
        limits=t.each("limits.certify", LIMITS),
    )


def proven(
    t: Catalogue,
    exactness: Sequence[Exactness],
    model: ModelSummary,
    found: Proven | None,
    more: str,
    class_: str,
) -> Markup:
    """Return the assumptions of all statements, the statements, and `more` in a box."""
    parts = []
    if found is not None:
        lead = t(
            "proven.lead",
            inputs=grouped(exactness[0].num_inputs),
            error=scientific(max(item.relative_error for item in exactness)),
        )
        terms = t.each("proven", ("assumes", "scope"))
        listed = (
            element(
                "li",
                heading(one.term),
                paragraph(one.claim, class_="claim"),
                facts(zip(terms, (one.assumes, one.scope), strict=True)),
            )
            for one in statements(t, model, found)
        )
        parts = [paragraph(lead), element("ol", *listed, class_="statements")]
    return section(t, "proven", *parts, boxed(more), class_=class_)


def statements(t: Catalogue, model: ModelSummary, found: Proven) -> Iterator[Statement]:
    """Yield the statements, those about test inputs first."""
    yield from of_radii(t, found)
    if found.linf is not None:  # where every entry may change
        total, lower = grouped(found.linf.num_inputs), found.linf.median_lower
        if lower is None:
            claim = t("proven.linf.unbounded", total=total)
        else:
            claim = t("proven.linf.claim", lower=floored(lower), total=total)
        if found.linf.median_upper is not None:
            upper = raised(found.linf.median_upper)
            claim += t("sentence.gap") + t("proven.linf.attack", upper=upper)
        yield make_statement(t, "linf", claim, total=total)
    yield from of_truncation(t, model, found)
    yield from of_inputs(t, model, found)
    for item in found.stability:  # what storing the weights in one format can do
        if item.refused is not None:
            claim, leading = t("proven.rounding.refused", reason=item.refused), "0"
        else:
            numbers, leading = rounding_numbers(item), grouped(len(item.classes[0].sines))
            key = "none" if numbers["count"] == "0" else "claim"
            claim = t(f"proven.rounding.{key}", **numbers)
        yield make_statement(t, "rounding", claim, kind=item.kind, leading=leading)


def make_statement(t: Catalogue, key: str, claim: str, **values: str) -> Statement:
    """Return a statement whose term, assumption and scope stand below its key."""
    term, assumes, scope = t.each(f"proven.{key}", ("term", "assumes", "scope"), **values)
    return Statement(term, claim, assumes, scope)


def box(found: Proven) -> dict[str, str]:
    """Return the ends of the interval in which inputs lie; none where it is not known."""
    ends = {} if found.box is None else {"low": found.box.low, "high": found.box.high}
    return {name: f"{end:g}".replace("-", MINUS) for name, end in ends.items()}


def of_radii(t: Catalogue, found: Proven) -> Iterator[Statement]:
    """Yield how far inputs can move, and that the radii are not too small."""
    radii, ends = found.l2, box(found)
    if radii is None:
        return
    total = grouped(radii.num_inputs)
    moved = [item for item in radii.inputs if item.radius is None or item.radius > 0]
    sure = grouped(sum(item.status != "not_finite" for item in moved))
    key = "claim" if radii.median is not None else "unbounded"
    median = floored(radii.median or 0.0)
    claim = t(f"proven.radius.{key}", count=sure, total=total, median=median)
    yield make_statement(t, "radius", claim, total=total, **ends)
    if not radii.num_examples:
        return
    if radii.num_open:
        claim = t("proven.exact.some", open=grouped(radii.num_open), total=sure)
    else:
        gap = scientific(radii.largest_gap)
        claim = t("proven.exact.all", examples=grouped(radii.num_examples), gap=gap)
    yield make_statement(t, "exact", claim, **ends)


def of_truncation(t: Catalogue, model: ModelSummary, found: Proven) -> Iterator[Statement]:
    """Yield what truncation can change, and how many predictions provably survive it."""
    cut = found.truncation
    # The truncation that was chosen, or else the mildest one that is shown.
    point = next((point for point in cut.points if point.k == cut.chosen), cut.points[-1])
    bounds, attained = point.bounds, sum(point.attained)
    claim = t(
        "proven.truncation.claim",
        k=grouped(point.k),
        of=grouped(model.d_input),
        bound=raised(max(bounds)),
        lowest=raised(min(bounds)),
        highest=raised(max(bounds)),
    )
    if attained:
        numbers = {"count": grouped(attained), "classes": grouped(len(bounds))}
        claim += t("sentence.gap") + t("proven.truncation.attained", **numbers)
    term, assumes = t.each("proven.truncation", ("term", "assumes"))
    radius = floored(cut.radius, 6)
    scope = t(f"proven.truncation.{cut.radius_origin}", radius=radius, **box(found))
    yield Statement(term, claim, assumes, scope)
    if point.certified is None or point.agreement is None or found.l2 is None:
        return
    total = grouped(found.l2.num_inputs)
    claim = t(
        "proven.agreement.claim",
        k=grouped(point.k),
        certified=percent(point.certified, toward=-1),
        agreement=percent(point.agreement),
        total=total,
    )
    yield make_statement(t, "agreement", claim, total=total)


def of_inputs(t: Catalogue, model: ModelSummary, found: Proven) -> Iterator[Statement]:
    """Yield which inputs are unused, and how much a single one can do."""
    use, total = found.input_use, grouped(model.d_input)
    if use.unused:
        claim = t("proven.unused.some", count=grouped(len(use.unused)), total=total)
    elif use.num_undecided:
        undecided = grouped(use.num_undecided)
        claim = t("proven.unused.none", total=total, undecided=undecided)
    else:
        claim = t("proven.unused.all", total=total)
    yield make_statement(t, "unused", claim)
    if not use.influence:
        return  # without a box one input can do anything
    most = max(use.influence, key=lambda item: item.bound)
    claim = t(
        "proven.influence.claim",
        bound=raised(most.bound),
        reached=floored(most.reached),
        input=input_name(t, model, most.input),
        name=clean_names(model.output_names)[most.output],
    )
    said = make_statement(t, "influence", claim, **box(found))
    if found.box is not None and (origin := found.box.origin):
        said = replace(said, scope=said.scope + t("sentence.gap") + t(f"proven.box.{origin}"))
    yield said


def rounding_numbers(item: RoundingStability) -> dict[str, str]:
    """Return the worst numbers over the classes; `count` of the `total` directions are sure."""
    classes = item.classes
    sines = [sine for one in classes for sine in one.sines]
    sure = [sine for sine in sines if sine < 1]
    shares = (one.movement / one.largest for one in classes if one.largest > 0)
    return {
        "movement": raised(max(one.movement for one in classes), 2),
        "share": percent(max(shares, default=0), 2, toward=1),
        "count": grouped(len(sure)),
        "total": grouped(len(sines)),
        "angle": raised(math.degrees(math.asin(max(sure, default=0.0))), 2),  # of the sure ones
    }


def radii(t: Catalogue, record: Certificate) -> Markup:
    """Return curve, tables and notes of the distances; a remark if no data were given."""
    found = record.l2
    if found is None:
        return section(t, "radii", boxed(t("radii.none")))
    step = max((len(found.curve) - 1) // ROWS, 1)
    shares = (
        (floored(point.radius), percent(point.share, toward=-1)) for point in found.curve[::step]
    )
    curve = [(point.radius, point.share) for point in found.curve]
    numbers = keyed_table(t, "radii", "size share", shares, words="")
    pair = figure(radii_chart(t, curve, found.median)), numbers
    statuses = (
        (t.word("radii", status), grouped(count))
        for status, count in found.statuses.items()
        if count
    )
    caption = t("radii.statuses", total=grouped(found.num_inputs))
    return section(
        t,
        "radii",
        paragraph(t("radii.lead")),
        element("div", *pair, class_="curve-and-table"),
        *radii_notes(t, record, found),
        table(t, caption, t.each("radii", ("status", "count")), statuses),
    )


def radii_notes(t: Catalogue, record: Certificate, found: EuclideanRadii) -> Iterator[Markup]:
    """Yield what holds within the range of inputs, and where every entry may change."""
    examples, inside = grouped(found.num_examples), grouped(found.num_examples_in_box)
    yield callout(t, "radii.box", examples=examples, inside=inside, **box(record))
    bounds = record.linf
    if bounds is None:
        return
    lower, upper = bounds.median_lower, bounds.median_upper
    yield callout(
        t,
        "radii.linf",
        total=grouped(bounds.num_inputs),
        lower=t("radii.unlimited") if lower is None else floored(lower),
        upper=t("radii.unlimited") if upper is None else raised(upper),
        restarts=grouped(bounds.restarts),
        steps=grouped(bounds.steps),
    )


def truncation(t: Catalogue, cut: TruncationGuarantees) -> Markup:
    """Return one row for each number of eigenvectors kept, and how k was chosen."""
    notes = []
    if cut.points[0].certified is not None:
        level = f"{100 * cut.level:g}%"
        if cut.chosen_by == "agreement":
            notes.append(t("cut.chosen", k=grouped(cut.chosen or 0), level=level))
        elif cut.chosen is None:
            notes.append(t("cut.not_enough", level=level))
        notes.append(t("cut.note"))
    rows = [
        TableRow(point, class_="marked" if point.k == cut.chosen else None) for point in cut.points
    ]
    return section(
        t,
        "cut",
        paragraph(t("cut.lead", radius=floored(cut.radius, 6))),
        cut_table(cut).on_page(t, rows),
        *map(quiet, notes),
        name="truncation",
    )


def cut_table(cut: TruncationGuarantees) -> FieldTable:
    """Return the columns of a truncation; those that need data where there were some."""

    def number_kept(_: Catalogue, point: TruncationGuarantee) -> str:
        return f"{grouped(point.k)}{'*' if point.k == cut.chosen else ''}"

    columns: tuple[FieldColumn, ...] = (
        FieldColumn("k", number_kept, lambda _, point: grouped(point.k)),
        FieldColumn("bounds", lambda _, point: raised(max(point.bounds))),
        FieldColumn(
            "bounds", lambda _, x: raised(min(x.bounds)), where="page", heading="cut.least"
        ),
    )
    if cut.points[0].certified is not None:
        columns += (
            FieldColumn("certified", lambda _, x: percent(x.certified or 0.0, toward=-1)),
            FieldColumn("agreement"),
            FieldColumn(
                "mean", lambda _, x: signed_quantity(max(x.mean or (0.0,), key=abs)), where="page"
            ),
            FieldColumn(
                "deviation", lambda _, x: quantity(max(x.deviation or (0.0,))), where="page"
            ),
        )
    return FieldTable(TruncationGuarantee, columns, "cut.caption")


def input_use(t: Catalogue, record: Certificate) -> Markup:
    """Return the inputs that are proven unused, and the strongest input of each class."""
    model, unused = record.model, record.input_use.unused
    names = clean_names(model.output_names)
    rows = []
    for item in record.input_use.influence:
        ends = raised(item.bound), floored(item.reached)
        rows.append((names[item.output], input_name(t, model, item.input), *ends))
    listed = [
        grouped(index) if model.input_names is None else input_name(t, model, index)
        for index in unused[:LISTED]
    ]
    if len(unused) > LISTED:
        listed.append(t("use.more", count=grouped(len(unused) - LISTED)))
    lead = t("use.unused", list=t("list.comma").join(listed)) if unused else ""
    unknown = boxed(t("proven.influence.unknown"))
    body = keyed_table(t, "use", "class input bound reached", rows) if rows else unknown
    return section(t, "use", paragraph(lead), body, name="inputs")


def rounding(t: Catalogue, record: Certificate) -> Markup:
    """Return one row for each format that weights can be stored in."""
    rows, nothing = [], t("round.nothing")
    for item in record.stability:
        if item.refused is not None:
            rows.append([item.kind, *[nothing] * 4])
            continue
        found = rounding_numbers(item)
        sure, angle = t("round.count", **found), t("round.degrees", **found)
        angle = nothing if found["count"] == "0" else angle
        rows.append([item.kind, found["movement"], found["share"], sure, angle])
    body = keyed_table(t, "round", "kind movement share guaranteed angle", rows)
    return section(t, "round", paragraph(t("round.lead")), body, name="rounding")
