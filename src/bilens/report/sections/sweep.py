"""The page of a sweep: how each number lies, maps, what stands out, rules, what is missing."""

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bilens.records.sweep_report import (
    Five,
    Histogram,
    NumberChange,
    Reason,
    SweepChange,
    SweepSummary,
    SweptNumber,
)
from bilens.report.charts.spectra import LayerColumn, layer_columns
from bilens.report.charts.sweeps import FULL, histogram_chart, layer_map, line_number
from bilens.report.markup import (
    Content,
    Figure,
    drawings,
    element,
    figure,
    heading,
    heads,
    items,
    joined,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.raster import colour_bar
from bilens.report.sections.decision import listed
from bilens.report.sections.overview import (
    Page,
    condition_lines,
    file_facts,
    finding_line,
    mark,
)
from bilens.report.text import NONE, Catalogue, fixed, quantity, signed, signed_quantity, whole

QUANTILES = ("least", "low", "median", "high", "largest")
TASKS = ("audit", "fit", "decompose", "compare", "convert")
GAUSSIAN = ("audit", "compare")  # whose R² is under N(0, I), whatever the layers see
SPARSE = 16  # cells for each row, from which a map would be empty
PALE = 0.5  # |z| that cannot be seen
SAID = 3  # outliers of a number in the terminal


def sweep_page(t: Catalogue, record: SweepSummary) -> Page:
    return Page(
        keys="sweep.page",
        title=record.source.path,
        count=record.num_rows,
        facts=facts_of(t, record),
        parts=(
            ("numbers", numbers(t, record)),
            ("maps", maps(t, record)),
            ("outliers", outliers(t, record)),
            ("checks", checks(t, record)),
            ("coverage", coverage(t, record)),
            ("difference", difference(t, record.difference)),
        ),
        limits=t.each("sweep.limits", ("rule", "normal", "meaning"), z=fixed(record.threshold, 1)),
        styles=("layers.css",),
    )


def facts_of(t: Catalogue, record: SweepSummary) -> Iterator[tuple[str, str]]:
    yield from file_facts(t, record)
    yield t("layers.facts.layers"), whole(record.num_rows)
    yield t("layers.facts.dtype"), record.model.dtype
    yield t("sweep.facts.tasks"), ", ".join(record.options.tasks)
    yield t("sweep.facts.results"), results(t, record)


def results(t: Catalogue, record: SweepSummary) -> str:
    found, wanted = sum(one.found for one in record.tasks), len(record.tasks) * record.num_rows
    return t("sweep.facts.of", found=whole(found), wanted=whole(wanted))


def label(t: Catalogue, one: SweptNumber | NumberChange) -> str:
    """Return what a number is called, behind its task."""
    key = f"sweep.number.{one.name}"
    return f"{one.task} · {t(key) if t.has(key) else one.name}"


def numbers(t: Catalogue, record: SweepSummary) -> Markup:
    """Return a histogram of each number, and a row for each kind of layer."""
    drawn, rows = list[tuple[str, Content]](), list[Sequence[Content]]()
    for one in record.numbers:
        name = label(t, one)
        if one.histogram is not None:
            drawn.append((name, histogram(t, name, one.histogram, logarithm=one.logarithm)))
        for place, kind in enumerate(one.kinds):
            named = joined("" if place else name, " ", element("span", kind.kind, class_="quiet"))
            far = NONE if kind.spread is None else whole(kind.outliers)
            rows.append((named, whole(kind.count), *shown(kind.quantiles), far))
    if not rows:
        return Markup()
    columns = heads(*t.each("sweep.numbers", ("number", "count", *QUANTILES, "far")))
    lead, caption = t.each("sweep.numbers", ("lead", "caption"))
    body = table(t, caption, columns, rows, class_="layers")
    return section(t, "sweep.numbers", paragraph(lead), drawings(drawn), body)


def histogram(t: Catalogue, name: str, found: Histogram, *, logarithm: bool = False) -> Content:
    """Return how a number lies, and below the drawing how many layers lie beyond it."""
    beyond = {"below": whole(found.below), "above": whole(found.above)}
    text = t("sweep.numbers.beyond", **beyond)
    chart = histogram_chart(name, text, t("sweep.numbers.layers"), found, logarithm=logarithm)
    return joined(chart.__html__(), quiet(text)) if found.below + found.above else chart


def shown(five: Five) -> list[str]:
    return [quantity(value, 4) for value in five]


def scores(record: SweepSummary, one: SweptNumber) -> list[float | None]:
    """Return the robust z of each row among its kind; None without a number, or with too few."""
    scales = {kind.kind: (kind.middle, kind.spread) for kind in one.kinds}
    found: list[float | None] = []
    for place, value in zip(record.kind_of_row, one.values, strict=True):
        middle, spread = scales.get(record.kinds[place], (0.0, None))
        if value is None or spread is None:
            found.append(None)
        else:
            found.append(((math.log(value) if one.logarithm else value) - middle) / spread)
    return found


def maps(t: Catalogue, record: SweepSummary) -> Markup:
    """Return a map of each number, or a column for each layer where a layer has one row."""
    grid, drawn = record.grid, list[tuple[str, Content]]()
    across, lines = len(grid.layers), len(grid.lines)
    if across * lines > SPARSE * record.num_rows:
        return Markup()
    for one in record.numbers:
        name, z = label(t, one), scores(record, one)
        if max((abs(score or 0.0) for score in z), default=0.0) < PALE and lines > 1:
            continue
        if lines > 1:
            text = t("sweep.maps.text", layers=whole(across), lines=whole(lines))
            drawing = layer_map((name, text), t("layers.charts.layer"), grid, z)
        else:
            drawing = column_chart(t, name, one, z, record.threshold)
        drawn.append((name, drawing))
    if not drawn:
        return Markup()
    blocks: list[Content] = [paragraph(t("sweep.maps.columns"))]
    if lines > 1:
        end = fixed(FULL, 0)
        bar = (
            element("span", f"z ≤ −{end}"),
            element(
                "img",
                src=colour_bar(),
                alt=t("sweep.maps.colours", z=end),
                width=220,
                height=14,
                class_="layer-map",
            ),
            element("span", f"z ≥ +{end}"),
        )
        caption = element("figcaption", t("sweep.maps.colours", z=end), class_="quiet")
        legend = element("figure", element("div", *bar, class_="scale"), caption)
        blocks = [paragraph(t("sweep.maps.lead")), legend]
        alone = [line for line in grid.lines if not line_number(line)]
        if alone:
            blocks.append(quiet(t("sweep.maps.alone", names=", ".join(alone))))
    return section(t, "sweep.maps", *blocks, drawings(drawn))


def column_chart(
    t: Catalogue,
    name: str,
    one: SweptNumber,
    z: Sequence[float | None],
    threshold: float,
) -> Figure:
    columns = [
        LayerColumn(
            None if value is None else max(value, 0.0), marked=abs(score or 0.0) > threshold
        )
        for value, score in zip(one.values, z, strict=True)
    ]
    return layer_columns(t, name, t("sweep.maps.columns"), columns)


def outliers(t: Catalogue, record: SweepSummary) -> Markup:
    """Return the layers that stand out, the farthest of each number first."""
    blocks: list[Content] = []
    calm = list[str]()
    columns = heads(*t.each("sweep.outliers", ("layer", "value", "usual", "z")))
    for one in record.numbers:
        if not one.outliers:
            calm += [label(t, one)] if one.kinds else []
            continue
        usual = {kind.kind: quantity(kind.quantiles[2], 4) for kind in one.kinds}
        rows = [
            (
                joined(far.name, " ", element("span", far.kind, class_="quiet")),
                quantity(far.value, 4),
                usual[far.kind],
                signed(far.z, 1),
            )
            for far in one.outliers
        ]
        blocks += [
            heading(label(t, one)),
            paragraph(outlier_count(t, one)),
            table(t, "", columns, rows, class_="layers", label=label(t, one)),
        ]
    if calm:
        blocks.append(quiet(t("sweep.outliers.none", names=t("list.comma").join(calm))))
    if not blocks:
        return Markup()
    lead = paragraph(t("sweep.outliers.lead", z=fixed(record.threshold, 1)))
    return section(t, "sweep.outliers", lead, *blocks)


def outlier_count(t: Catalogue, one: SweptNumber) -> str:
    far, of = (sum(getattr(kind, x) for kind in one.kinds) for x in ("outliers", "count"))
    counts = {"far": whole(far), "of": whole(of), "shown": whole(len(one.outliers))}
    key = "more" if far > len(one.outliers) else "count"
    return t(f"sweep.outliers.{key}", expected=quantity(one.expected, 2), **counts)


def checks(t: Catalogue, record: SweepSummary) -> Markup:
    """Return how the rules ended over all layers, and the conditions that were asked for."""
    lines = [finding_line(t, "layer_audit", finding) for finding in record.verdict]
    blocks: list[Content] = [listed(t, lines)] if lines else [paragraph(t("sweep.checks.none"))]
    if asked := condition_lines(t, record):
        blocks += [heading(t("conditions.heading")), listed(t, asked)]
    return section(t, "sweep.checks", paragraph(t("sweep.checks.lead")), *blocks)


def coverage(t: Catalogue, record: SweepSummary) -> Markup:
    """Return what there is of each task, why the rest is not there, and what nobody looked at."""
    counts = ("found", "refused", "failed", "missing")
    columns = heads(*t.each("sweep.coverage", ("task", *counts)))
    rows = [[one.task, *(whole(getattr(one, x)) for x in counts)] for one in record.tasks]
    blocks: list[Content] = [table(t, t("sweep.coverage.caption"), columns, rows)]
    if record.reasons:
        why = (reason_line(t, one) for one in record.reasons)
        blocks += [heading(t("sweep.coverage.why")), items(why, "sentences")]
    blocks += [heading(t("sweep.coverage.unseen")), items(unseen(t, record), "sentences")]
    return section(t, "sweep.coverage", *blocks)


def reason_line(t: Catalogue, one: Reason) -> str:
    names = t("list.comma").join([*one.names, *(["…"] if one.count > len(one.names) else [])])
    counts = {"task": one.task, "count": whole(one.count), "names": names}
    return t(f"sweep.coverage.{one.state}_line", reason=one.reason, **counts)


def unseen(t: Catalogue, record: SweepSummary) -> Iterator[str]:
    """Yield what was not looked at."""
    options = record.options
    for key, tasks in (
        ("normal", [x for x in options.tasks if x in GAUSSIAN or not options.activations]),
        ("undone", [x for x in TASKS if x not in options.tasks]),
    ):
        if tasks:
            yield t(f"sweep.coverage.{key}", tasks=t("list.comma").join(tasks))
    empty = [label(t, one) for one in record.numbers if not one.kinds]
    if empty:
        yield t("sweep.coverage.empty", names=t("list.comma").join(empty))
    yield t("sweep.coverage.rest")


def difference(t: Catalogue, found: SweepChange | None) -> Markup:
    """Return what moved since another sweep; nothing without one."""
    if found is None:
        return Markup()
    said = [t("sweep.difference.lead", baseline=found.baseline.path)]
    for key, count, names in (
        ("alone", found.num_alone, found.alone),
        ("baseline_alone", found.num_baseline_alone, found.baseline_alone),
    ):
        if count:
            more = [*names, *(["…"] if count > len(names) else [])]
            said.append(t(f"sweep.difference.{key}", count=whole(count), names=", ".join(more)))
    blocks: list[Content] = [*map(paragraph, said)]
    moved = [one for one in found.numbers if one.moved]
    rows = [
        (label(t, one), whole(one.compared), whole(one.same), *map(signed_quantity, one.quantiles))
        for one in moved
        if one.quantiles
    ]
    if rows:
        about = t.each("sweep.difference", ("number", "compared", "same"))
        columns = heads(*about, *t.each("sweep.numbers", QUANTILES))
        blocks.append(table(t, t("sweep.difference.caption"), columns, rows, class_="layers"))
    calm = [label(t, one) for one in found.numbers if not one.moved]
    if calm:
        blocks.append(quiet(t("sweep.difference.calm", names=t("list.comma").join(calm))))
    columns = heads(*t.each("sweep.difference", ("layer", "before", "after", "change")))
    for one in moved:
        name = t("sweep.difference.of", name=label(t, one))
        rows = [
            (
                each.name,
                quantity(each.before, 4),
                quantity(each.after, 4),
                signed_quantity(each.after - each.before),
            )
            for each in one.moved
        ]
        blocks += [
            heading(name),
            figure(histogram(t, name, one.histogram)) if one.histogram else "",
            table(t, "", columns, rows, class_="layers", label=name),
        ]
    return section(t, "sweep.difference", *blocks)


def sweep_lines(t: Catalogue, record: SweepSummary) -> Iterator[str]:
    """Yield the report in a few lines of text."""
    yield f"{record.source.path}: {results(t, record)}"
    yield from (reason_line(t, one) for one in record.reasons[:SAID])
    for one in record.numbers:
        if one.kinds:
            low, _, middle, _, high = shown(one.kinds[0].quantiles)
            far = outlier_count(t, one) if one.outliers else ""
            yield f"{label(t, one)}: {middle} ({low} – {high}) {far}".rstrip()
            for each in one.outliers[:SAID]:
                yield f"  {each.name}: {quantity(each.value, 4)}, z = {signed(each.z, 1)}"
    for change in record.difference.numbers if record.difference else ():
        if change.moved:
            yield t("sweep.difference.of", name=label(t, change))
        for move in change.moved[:SAID]:
            yield f"  {move.name}: {quantity(move.before, 4)} → {quantity(move.after, 4)}"
    findings = [finding_line(t, "layer_audit", finding) for finding in record.verdict]
    for line in [*findings, *condition_lines(t, record)]:
        yield f"{mark(t, line.outcome)}: {line.sentence}"
