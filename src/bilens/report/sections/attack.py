"""The page of an attack: what is proven, curves, numbers at one length, the perturbations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from markupsafe import Markup

from bilens.records.attack import Attack, MethodCurve, ObjectiveFinding
from bilens.records.base import Numbers
from bilens.report.blocks import Column, figure, heading, paragraph, quiet, section, table
from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import effect_chart, margin_axis
from bilens.report.numbers import decimals, fixed, percent, scientific, whole
from bilens.report.page import Page
from bilens.report.plot import SHARES, swatch
from bilens.report.raster import Painter, colour_bar
from bilens.report.sections.overview import class_names, model_facts
from bilens.report.svg import element

MOST_OBJECTIVES = 20  # rows of perturbations; the document has them all
PARTS = ("effect", "clipped")


def attack_page(t: Catalogue, record: Attack) -> Page:
    """Return the page of an attack."""
    return Page(
        keys="attack.page",
        footer="attack.page.footer",
        title=record.source.path or record.model.kind,
        count=record.model.d_output,
        facts=model_facts(t, record),
        parts=(
            ("proof", proof(t, record)),
            ("curves", curves(t, record)),
            ("numbers", numbers(t, record)),
            ("perturbations", perturbations(t, record)),
        ),
        conventions=methods(t, record),
        limits=limits(t, record),
        styles=("attack.css",),
    )


def proof(t: Catalogue, record: Attack) -> Markup:
    """Return whether the comparison with the optimal perturbations held, with its numbers."""
    objectives = record.objectives
    claim = t(
        f"attack.proof.{'pass' if record.holds else 'fail'}",
        excess=scientific(max(objective.worst_excess for objective in objectives)),
        gap=scientific(max(objective.proof_gap for objective in objectives)),
    )
    return section(
        "proof",
        t("attack.proof.heading"),
        paragraph(t("attack.proven"), class_="overall"),
        paragraph(claim, class_=None if record.holds else "callout wrong"),
        paragraph(t("attack.not_proven")),
        class_="verdict" if record.holds else "verdict fail",
    )


def curves(t: Catalogue, record: Attack) -> Markup:
    """Return curves of all pixels, of edge pixels, and of both with clipped pixels."""
    groups = []
    for part in PARTS:
        for edge in (False, True):
            chosen = [curve for curve in record.curves if curve.edge == edge]
            if chosen:
                title = t(f"attack.curves.{part}.{'edge' if edge else 'whole'}")
                groups.append(chart_group(t, record.epsilons, chosen, part, title))
    return section(
        "curves",
        t("attack.curves.heading"),
        paragraph(t("attack.curves.lead")),
        element("div", *groups, class_="groups"),
    )


def chart_group(
    t: Catalogue, epsilons: Numbers, chosen: Sequence[MethodCurve], part: str, title: str
) -> Markup:
    """Return accuracy, mean margin and target rate of some methods, below their legend."""
    effects = [curve.clipped if part == "clipped" else curve.effect for curve in chosen]
    names = [t(f"attack.kind.{curve.kind}") for curve in chosen]
    margins = margin_axis([value for effect in effects for value in effect.margin])
    drawn = (
        ("accuracy", [effect.accuracy for effect in effects], SHARES),
        ("margin", [effect.margin for effect in effects], margins),
        ("target_rate", [effect.target_rate for effect in effects], SHARES),
    )
    charts = []
    for key, values, axis in drawn:
        ends = [
            t("attack.curves.end", name=name, value=axis.text(value[-1]))
            for name, value in zip(names, values, strict=True)
        ]
        last = t("attack.curves.text", epsilon=f"{epsilons[-1]:g}", list=t("list.comma").join(ends))
        rows = [(colour_class(one), value) for one, value in zip(chosen, values, strict=True)]
        caption = t(f"attack.effect.{key}")
        chart = effect_chart(caption, last, t("attack.curves.x"), epsilons, rows, axis)
        charts.append(figure(chart, caption))
    legend = (
        element("li", swatch(colour_class(curve)), element("span", name))
        for curve, name in zip(chosen, names, strict=True)
    )
    return element(
        "section",
        heading(title),
        element("ul", *legend, class_="keys"),
        element("div", *charts, class_="trio"),
        aria_label=title,
    )


def numbers(t: Catalogue, record: Attack) -> Markup:
    """Return each method at the length that is drawn."""
    epsilon = drawn_length(record)
    at = record.epsilons.index(epsilon)
    rows = (
        (
            t(f"attack.kind.{curve.kind}"),
            percent(curve.effect.accuracy[at]),
            fixed(curve.effect.margin[at]),
            percent(curve.effect.target_rate[at]),
            percent(curve.clipped.accuracy[at]),
            fixed(curve.gap[at], 3),
            t.listing([t(f"attack.reads.{item}") for item in curve.reads]),
        )
        for curve in record.curves
    )
    columns = [
        Column(t("attack.numbers.kind"), numeric=False),
        *(Column(t(f"attack.effect.{key}")) for key in ("accuracy", "margin", "target_rate")),
        *(Column(t(f"attack.numbers.{key}")) for key in ("clipped", "gap")),
        Column(t("attack.numbers.reads"), numeric=False),
    ]
    return section(
        "numbers",
        t("attack.numbers.heading", epsilon=f"{epsilon:g}"),
        paragraph(t("attack.numbers.lead")),
        table(t, t("attack.numbers.caption"), columns, rows, class_="effects"),
    )


def perturbations(t: Catalogue, record: Attack) -> Markup:
    """Return the first perturbation of every method, a row for each objective."""
    painter, names = painter_of(record), class_names(record.model)
    shown = record.objectives[:MOST_OBJECTIVES]
    columns = [
        Column(t("attack.perturbations.objective"), numeric=False),
        *(Column(t(f"attack.kind.{curve.kind}"), numeric=False) for curve in record.curves),
    ]
    rows = [
        (objective_name(t, one, names), *tiles(t, record, one, names, painter)) for one in shown
    ]
    part = t("attack.perturbations.part", shown=len(shown), count=len(record.objectives))
    end = fixed(painter.scale, decimals([painter.scale], 2))
    scale = (
        element("span", f"−{end}"),
        element("img", src=colour_bar(), alt=""),
        element("span", f"+{end}"),
    )
    legend = (
        paragraph(t("attack.perturbations.lead"), class_="how"),
        element("figure", *scale, class_="scale"),
    )
    return section(
        "perturbations",
        t("attack.perturbations.heading", epsilon=f"{drawn_length(record):g}"),
        element("div", *legend, class_="legend"),
        quiet(part) if len(shown) < len(record.objectives) else "",
        table(t, "", columns, rows, class_="perturbations", label=t("nav.perturbations")),
    )


def tiles(
    t: Catalogue, record: Attack, one: ObjectiveFinding, names: list[str], painter: Painter
) -> Iterator[Markup | str]:
    """Yield an image for each method, or a dash where it has no perturbation."""
    first = {item.kind: item for item in one.perturbations if item.member == 1}
    class_ = "vector strip" if painter.is_strip else "vector"
    for curve in record.curves:
        found, kind = first.get(curve.kind), t(f"attack.kind.{curve.kind}")
        alt = t("attack.perturbations.alt", kind=kind, name=objective_name(t, one, names))
        if found is None:
            yield "—"
        else:
            yield element("img", class_=class_, src=painter.vector(found.vector), alt=alt)


def painter_of(record: Attack) -> Painter:
    """Return how perturbations are drawn: one scale, the median of the largest components."""
    vectors = (item.vector for one in record.objectives for item in one.perturbations)
    return Painter.of(record.model.input_shape, vectors)


def drawn_length(record: Attack) -> float:
    """Return the length at which perturbations and numbers are shown."""
    return record.objectives[0].perturbations[0].drawn_epsilon


def colour_class(curve: MethodCurve) -> str:
    """Return the class that colours a method; the edge shares the colour of the whole."""
    return f"kind-{curve.kind.removesuffix('_edge').replace('_', '-')}"


def objective_name(t: Catalogue, objective: ObjectiveFinding, names: list[str]) -> str:
    """Return from which class to which."""
    source = objective.source
    first = t("attack.perturbations.all") if source is None else names[source]
    return t("attack.perturbations.name", source=first, target=names[objective.target])


def methods(t: Catalogue, record: Attack) -> list[tuple[str, str]]:
    """Return each method and how its perturbations are made."""
    values = {
        "count": whole(record.random_perturbations),
        "restarts": whole(record.restarts),
    }
    kinds = [curve.kind for curve in record.curves]
    return [(t(f"attack.kind.{kind}"), t(f"attack.made.{kind}", **values)) for kind in kinds]


def limits(t: Catalogue, record: Attack) -> list[str]:
    """Return what the page does not say, one sentence each."""
    clipped = max(objective.clipped_images for objective in record.objectives)
    return [
        t("attack.not_proven"),
        t("attack.limits.mean"),
        t("attack.limits.clipped", count=whole(clipped)),
        t("attack.limits.edge", count=whole(record.edge_pixels)),
        t("attack.limits.layer"),
    ]
