"""The page of an attack: what is proven, curves, numbers at one length, the perturbations."""

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bilens.records.attack import Attack, MethodCurve
from bilens.report.charts.curves import effect_chart
from bilens.report.markup import (
    Column,
    element,
    figure,
    heading,
    paragraph,
    quiet,
    section,
    table,
    vector_image,
)
from bilens.report.plot import SHARES, Axis, key_list, rounded
from bilens.report.raster import Painter, colour_bar
from bilens.report.sections.overview import Page, clean_names, model_facts
from bilens.report.sections.performance_section import data_notes
from bilens.report.tables import FieldColumn, FieldTable
from bilens.report.text import NONE, Catalogue, grouped, scientific

MOST_OBJECTIVES = 20  # rows of perturbations; the document has them all
EFFECTS = ("accuracy", "margin", "target_rate")


def attack_page(t: Catalogue, record: Attack) -> Page:
    made = {"count": grouped(record.random_perturbations), "restarts": grouped(record.restarts)}
    kinds = [curve.kind for curve in record.curves]
    look = "verdict" if record.holds else "verdict fail"
    proof = (
        paragraph(t("attack.proven"), class_="overall"),
        paragraph(proof_claim(t, record), class_=None if record.holds else "callout wrong"),
        paragraph(t("attack.not_proven")),
        *map(paragraph, data_read(t, record)),
    )
    clipped = max(objective.clipped_images for objective in record.objectives)
    pixels = grouped(record.edge_pixels)
    edge = [t("attack.limits.edge", count=pixels)] if record.edge_pixels else []
    return Page(
        keys="attack.page",
        count=record.model.d_output,
        facts=model_facts(t, record),
        parts=(
            ("proof", section(t, "attack.proof", *proof, class_=look)),
            ("curves", curves(t, record)),
            ("numbers", numbers(t, record)),
            ("perturbations", perturbations(t, record)),
        ),
        conventions=[
            (t(f"attack.kind.{kind}"), t(f"attack.made.{kind}", **made)) for kind in kinds
        ],
        limits=[
            t("attack.not_proven"),
            t("attack.limits.mean"),
            t("attack.limits.clipped" if clipped else "attack.limits.box", count=grouped(clipped)),
            *edge,
            t("attack.limits.layer"),
        ],
        styles=("attack.css",),
    )


def proof_claim(t: Catalogue, record: Attack) -> str:
    """Return whether the comparison with the optimal perturbations held, with its numbers."""
    return t(
        f"attack.proof.{'pass' if record.holds else 'fail'}",
        excess=scientific(max(objective.worst_excess for objective in record.objectives)),
        gap=scientific(max(objective.proof_gap for objective in record.objectives)),
    )


def data_read(t: Catalogue, record: Attack) -> list[str]:
    """Return which inputs made the perturbations and which judge them, and how they were read."""
    split, notes = record.split, data_notes(t, record.data)
    if split is None:
        return notes
    name = t("facts.unnamed_data") if record.data is None else record.data.name
    parts = t(
        f"attack.split.{'halves' if split.halved else 'parts'}",
        name=name or t("facts.unnamed_data"),
        count=grouped(split.made_from + split.judged_on),
        made=grouped(split.made_from),
        judged=grouped(split.judged_on),
    )
    return [parts, *notes]


def curves(t: Catalogue, record: Attack) -> Markup:
    """Return curves of all pixels, of edge pixels, and of both with clipped pixels."""
    groups = []
    for part in ("effect", "clipped"):
        for edge in (False, True):
            chosen = [curve for curve in record.curves if curve.edge == edge]
            chosen = [curve for curve in chosen if getattr(curve, part) is not None]
            if chosen:
                title = t(f"attack.curves.{part}.{'edge' if edge else 'whole'}")
                groups.append(chart_group(t, record.epsilons, chosen, part, title))
    lead = paragraph(t("attack.curves.lead"))
    return section(t, "attack.curves", lead, element("div", *groups, class_="groups"))


def chart_group(
    t: Catalogue, epsilons: Sequence[float], chosen: Sequence[MethodCurve], part: str, title: str
) -> Markup:
    """Return accuracy, mean margin and target rate of some methods, below their legend."""
    found = [curve.clipped if part == "clipped" else curve.effect for curve in chosen]
    effects = [effect for effect in found if effect is not None]
    names = t.each("attack.kind", (curve.kind for curve in chosen))
    # An edge shares the colour of the whole.
    kinds = [curve.kind.removesuffix("_edge").replace("_", "-") for curve in chosen]
    margins = [0.0, *(value for effect in effects for value in effect.margin)]
    drawn = (
        [effect.accuracy for effect in effects],
        [effect.margin for effect in effects],
        [effect.target_rate for effect in effects],
    )
    axes = (SHARES, Axis(rounded(margins)), SHARES)
    charts = []
    for key, values, axis in zip(EFFECTS, drawn, axes, strict=True):
        ends = [
            t("attack.curves.end", name=name, value=axis.text(value[-1]))
            for name, value in zip(names, values, strict=True)
        ]
        last = t("attack.curves.text", epsilon=f"{epsilons[-1]:g}", list=t("list.comma").join(ends))
        rows = [(f"kind-{kind}", value) for kind, value in zip(kinds, values, strict=True)]
        caption = t(f"field.Effect.{key}")
        chart = effect_chart((caption, last), t("attack.curves.x"), epsilons, rows, axis)
        charts.append(figure(chart, caption))
    return element(
        "section",
        heading(title),
        key_list((f"kind-{kind}", name) for kind, name in zip(kinds, names, strict=True)),
        element("div", *charts, class_="trio"),
        aria_label=title,
    )


def drawn_length(record: Attack) -> float:
    """Return the length at which perturbations and numbers are shown."""
    return record.objectives[0].perturbations[0].drawn_epsilon


def effects_at(at: int) -> list[FieldColumn]:
    """Return the columns of what methods do at one of the lengths, by its place."""
    clipped = FieldColumn(f"clipped.accuracy.{at}", heading="attack.numbers.clipped")
    return [*(FieldColumn(f"effect.{name}.{at}") for name in EFFECTS), clipped]


def effect_table(at: int) -> FieldTable:
    """Return the table of perturbation methods at one of the lengths."""
    columns = (
        FieldColumn("kind", lambda t, one: t(f"attack.kind.{one.kind}"), numeric=False),
        *effects_at(at),
        FieldColumn(f"gap.{at}"),
        FieldColumn("reads", made_from, numeric=False),
    )
    return FieldTable(MethodCurve, columns, "attack.numbers.caption")


def made_from(t: Catalogue, curve: MethodCurve) -> str:
    return t.listing(t.each("attack.reads", curve.reads))


def numbers(t: Catalogue, record: Attack) -> Markup:
    epsilon = drawn_length(record)
    at = record.epsilons.index(epsilon)
    return section(
        t,
        "attack.numbers",
        paragraph(t("attack.numbers.lead")),
        effect_table(at).on_page(t, record.curves, class_="effects"),
        epsilon=f"{epsilon:g}",
    )


def perturbations(t: Catalogue, record: Attack) -> Markup:
    """Return the first perturbation of every method, a row for each objective, on one scale."""
    vectors = (item.vector for one in record.objectives for item in one.perturbations)
    painter = Painter.scaled_to(record.model.input_shape, vectors)
    shown = record.objectives[:MOST_OBJECTIVES]
    kinds = t.each("attack.kind", (curve.kind for curve in record.curves))
    first = t("attack.perturbations.objective")
    columns = [Column(name, numeric=False) for name in (first, *kinds)]
    part = t("attack.perturbations.part", shown=len(shown), count=len(record.objectives))
    scale = (
        element("span", f"−{painter.end}"),
        element("img", src=colour_bar(), alt=""),
        element("span", f"+{painter.end}"),
    )
    legend = (
        paragraph(t("attack.perturbations.lead"), class_="how"),
        element("figure", *scale, class_="scale"),
    )
    rows = ([*tiles(t, record, place, painter)] for place in range(len(shown)))
    return section(
        t,
        "attack.perturbations",
        element("div", *legend, class_="legend"),
        quiet(part) if len(shown) < len(record.objectives) else "",
        table(t, "", columns, rows, class_="perturbations", label=t("nav.perturbations")),
        epsilon=f"{drawn_length(record):g}",
    )


def tiles(t: Catalogue, record: Attack, place: int, painter: Painter) -> Iterator[str]:
    """Yield from which class to which, and an image for each method that has a perturbation."""
    one, names = record.objectives[place], clean_names(record.model.output_names)
    source = t("attack.perturbations.all") if one.source is None else names[one.source]
    name = t("attack.perturbations.name", source=source, target=names[one.target])
    yield name
    first = {item.kind: item.vector for item in one.perturbations if item.member == 1}
    for curve in record.curves:
        if curve.kind in first:
            kind = t(f"attack.kind.{curve.kind}")
            alt = t("attack.perturbations.alt", kind=kind, name=name)
            yield vector_image(painter, first[curve.kind], alt, side=None)
        else:
            yield NONE
