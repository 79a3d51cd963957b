"""The page of a sweep: how each number lies, maps, what stands out, rules, what is missing."""

import math
from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bilens.records.sweep_report import NumberChange, Reason, SweepChange, SweepSummary, SweptNumber
from bilens.report.charts.sweeps import FULL, Grid, bars, bins, layer_map
from bilens.report.markup import (
    Content,
    drawings,
    element,
    figure,
    heading,
    items,
    joined,
    keyed_table,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.raster import colour_bar
from bilens.report.sections.decision_page import list_lines
from bilens.report.sections.overview import Page, condition_lines, file_facts, finding_line, mark
from bilens.report.text import NONE, Catalogue, fixed, grouped, quantity, signed, signed_quantity

COLUMNS = "number count least low median high largest far"
COUNTS = ("found", "refused", "failed", "missing")
SEEING = ("fit", "decompose", "convert")  # read on what the layers see, where that is given
SPARSE = 16  # cells for each row, from which a map would be empty
PALE = 0.5  # |z| that cannot be seen
SAID = 3  # layers and reasons in the terminal


def sweep_page(t: Catalogue, record: SweepSummary) -> Page:
    return Page(
        keys="sweep.page",
        title=record.source.path,
        count=record.model.num_layers,
        facts=(
            *file_facts(t, record),
            (t("layers.facts.layers"), grouped(record.model.num_layers)),
            (t("layers.facts.dtype"), record.model.dtype),
            (t("sweep.facts.tasks"), ", ".join(record.options.tasks)),
            (t("sweep.facts.results"), results(t, record)),
        ),
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


def results(t: Catalogue, record: SweepSummary) -> str:
    wanted = len(record.tasks) * record.model.num_layers
    found = sum(one.found for one in record.tasks)
    return t("sweep.facts.of", found=grouped(found), wanted=grouped(wanted))


def label(t: Catalogue, one: SweptNumber | NumberChange) -> str:
    """Return the name of a number, behind its task."""
    return f"{one.task} · {t.word('sweep.number', one.name)}"


def four(value: float) -> str:
    return quantity(value, 4)


def listing(t: Catalogue, found: Sequence[SweptNumber | NumberChange]) -> str:
    return t("list.comma").join(label(t, one) for one in found)


def numbers(t: Catalogue, record: SweepSummary) -> Markup:
    """Return a histogram of each number, and a row for each kind of layer."""
    drawn, rows = list[tuple[str, Content]](), list[Sequence[Content]]()
    for one in record.numbers:
        name = label(t, one)
        if (found := bins(one.values, one.logarithm)) is not None:
            edges, counts, below, above = found
            text = t("sweep.numbers.beyond", below=grouped(below), above=grouped(above))
            chart = bars((name, text), t("sweep.numbers.layers"), edges, counts, one.logarithm)
            drawn.append((name, joined(chart.__html__(), quiet(text)) if below + above else chart))
        for kind in one.kinds:
            of_kind = joined(name, " ", element("span", kind.kind, class_="quiet"))
            far = NONE if kind.spread is None else grouped(kind.outliers)
            five = map(four, kind.quantiles)
            rows.append((of_kind, grouped(kind.count), *five, far))
            name = ""
    if not rows:
        return Markup()
    body = keyed_table(t, "sweep.numbers", COLUMNS, rows, class_="layers")
    return section(t, "sweep.numbers", paragraph(t("sweep.numbers.lead")), drawings(drawn), body)


def scores(record: SweepSummary, one: SweptNumber) -> list[float | None]:
    """Return the robust z of each row among its kind; None without a number, or with too few."""
    scales = {kind.kind: (kind.middle, kind.spread) for kind in one.kinds}
    found: list[float | None] = []
    for place, value in zip(record.kind_of_row, one.values, strict=True):
        middle, spread = scales.get(record.kinds[place], (0.0, None))
        z = None
        if value is not None and spread is not None:
            z = ((math.log(value) if one.logarithm else value) - middle) / spread
        found.append(z)
    return found


def maps(t: Catalogue, record: SweepSummary) -> Markup:
    """Return a map of each number, in which something can be seen."""
    grid, drawn = Grid.place_layers(record.names), list[tuple[str, Content]]()
    across, lines = len(grid.layers), len(grid.lines)
    if across * lines > SPARSE * len(record.names):
        return Markup()
    for one in record.numbers:
        name, z = label(t, one), scores(record, one)
        if max(abs(score or 0.0) for score in z) > PALE:
            text = t("sweep.maps.text", layers=grouped(across), lines=grouped(lines))
            drawn.append((name, layer_map((name, text), t("layers.charts.layer"), grid, z)))
    how, end = t("sweep.maps.colours", z=fixed(FULL, 0)), fixed(FULL, 0)
    bar = element("img", src=colour_bar(), alt=how, width=220, height=14, class_="layer-map")
    ends = element("div", f"z ≤ −{end}", bar, f"z ≥ +{end}", class_="scale")
    blocks: list[Content] = [paragraph(t("sweep.maps.lead")), figure(ends), quiet(how)]
    alone = [name for line, name in enumerate(grid.lines) if not grid.number(line)]
    if alone and lines > 1:
        blocks.append(quiet(t("sweep.maps.alone", names=", ".join(alone))))
    return section(t, "sweep.maps", *blocks, drawings(drawn)) if drawn else Markup()


def outliers(t: Catalogue, record: SweepSummary) -> Markup:
    """Return the layers that stand out, the farthest of each number first."""
    blocks: list[Content] = [paragraph(t("sweep.outliers.lead", z=fixed(record.threshold, 1)))]
    columns = t.each("sweep.outliers", ("layer", "value", "usual", "z"))
    for one in record.numbers:
        if one.outliers:
            far = ((x.name, x.value, x.usual, x.z) for x in one.outliers)
            rows = [(name, four(value), four(usual), signed(z, 1)) for name, value, usual, z in far]
            body = table(t, "", columns, rows, class_="layers", label=label(t, one))
            blocks += [heading(label(t, one)), paragraph(outlier_count(t, one)), body]
    calm = [one for one in record.numbers if one.kinds and not one.outliers]
    if calm:
        blocks.append(quiet(t("sweep.outliers.none", names=listing(t, calm))))
    return section(t, "sweep.outliers", *blocks)


def outlier_count(t: Catalogue, one: SweptNumber) -> str:
    far, of = (sum(getattr(kind, x) for kind in one.kinds) for x in ("outliers", "count"))
    chance = quantity(one.expected, 2)
    return t("sweep.outliers.count", far=grouped(far), of=grouped(of), expected=chance)


def checks(t: Catalogue, record: SweepSummary) -> Markup:
    """Return how the rules ended over all layers, and the conditions that were asked for."""
    lines = [finding_line(t, "layers", finding) for finding in record.verdict]
    blocks: list[Content] = [list_lines(t, lines)] if lines else [paragraph(t("sweep.checks.none"))]
    if asked := condition_lines(t, record):
        blocks += [heading(t("conditions.heading")), list_lines(t, asked)]
    return section(t, "sweep.checks", paragraph(t("sweep.checks.lead")), *blocks)


def coverage(t: Catalogue, record: SweepSummary) -> Markup:
    """Return the results of each task, why some are missing, and the limits of all of them."""
    rows = [[one.task, *(grouped(getattr(one, x)) for x in COUNTS)] for one in record.tasks]
    blocks: list[Content] = [keyed_table(t, "sweep.coverage", f"task {' '.join(COUNTS)}", rows)]
    if record.reasons:
        why = (reason_line(t, one) for one in record.reasons)
        blocks += [heading(t("sweep.coverage.why")), items(why, "sentences")]
    asked, seen = record.options.tasks, record.options.activations is not None
    normal = [task for task in asked if task != "trace" and not (seen and task in SEEING)]
    empty = [one for one in record.numbers if not one.kinds]
    unseen = {"normal": t("list.comma").join(normal), "empty": listing(t, empty)}
    lines = [t(f"sweep.coverage.{key}", names=names) for key, names in unseen.items() if names]
    lines.append(t("sweep.coverage.rest"))
    blocks += [heading(t("sweep.coverage.unseen")), items(lines, "sentences")]
    return section(t, "sweep.coverage", *blocks)


def reason_line(t: Catalogue, one: Reason) -> str:
    said = {"task": one.tasks, "names": one.layers, "reason": one.reason}
    return t(f"sweep.coverage.{one.state}_line", count=grouped(one.count), **said)


def difference(t: Catalogue, found: SweepChange | None) -> Markup:
    """Return the changes since another sweep; nothing without one."""
    if found is None:
        return Markup()
    blocks: list[Content] = [paragraph(t("sweep.difference.lead", baseline=found.baseline.path))]
    for key in ("alone", "baseline_alone"):
        if names := getattr(found, key):
            blocks.append(paragraph(t(f"sweep.difference.{key}", names=names)))
    columns = t.each("sweep.difference", ("layer", "before", "after", "change"))
    for one in found.numbers:
        if one.moved:
            moves = [(move.name, move.before, move.after) for move in one.moved]
            rows = [(name, four(a), four(b), signed_quantity(b - a)) for name, a, b in moves]
            same = t("sweep.difference.same", same=grouped(one.same), of=grouped(one.compared))
            body = table(t, "", columns, rows, class_="layers", label=label(t, one))
            blocks += [heading(label(t, one)), paragraph(same), body]
    if calm := [one for one in found.numbers if not one.moved]:
        blocks.append(quiet(t("sweep.difference.calm", names=listing(t, calm))))
    return section(t, "sweep.difference", *blocks)


def sweep_lines(t: Catalogue, record: SweepSummary) -> Iterator[str]:
    """Yield the report in a few lines of text."""
    yield f"{record.source.path}: {results(t, record)}"
    yield from (reason_line(t, one) for one in record.reasons[:SAID])
    for one in record.numbers:
        if one.kinds:
            low, _, middle, _, high = map(four, one.kinds[0].quantiles)
            far = outlier_count(t, one) if one.outliers else ""
            yield f"{label(t, one)}: {middle} ({low} – {high}) {far}".rstrip()
            for each in one.outliers[:SAID]:
                yield f"  {each.name}: {four(each.value)}, z = {signed(each.z, 1)}"
    for change in record.difference.numbers if record.difference else ():
        for move in change.moved[:SAID]:
            both = f"{four(move.before)} → {four(move.after)}"
            yield f"{label(t, change)}: {move.name} {both}"
    findings = [finding_line(t, "layers", finding) for finding in record.verdict]
    for line in [*findings, *condition_lines(t, record)]:
        yield f"{mark(t, line.outcome)}: {line.sentence}"
