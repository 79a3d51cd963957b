"""What the page of an attack shows: curves, numbers at one length, masks, what is proven."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import effect_chart, margin_axis
from bilens.report.document import Document
from bilens.report.numbers import fixed, percent, scientific, whole
from bilens.report.plot import SHARES, swatch
from bilens.report.raster import Painter
from bilens.report.sections.names import class_names
from bilens.report.svg import Figure

MOST_OBJECTIVES = 20  # rows of masks; the document has them all
PARTS = ("effect", "clipped")


@dataclass(frozen=True)
class ChartGroup:
    """The three curves of some kinds of mask."""

    heading: str
    legend: list[tuple[Markup, str]]  # a piece of the line, and its name
    charts: list[tuple[str, Figure]]


@dataclass(frozen=True)
class NumberRow:
    """One kind of mask at one length."""

    name: str
    accuracy: str
    margin: str
    rate: str
    clipped: str
    gap: str
    reads: str


@dataclass(frozen=True)
class MaskRow:
    """The masks of one objective."""

    name: str
    tiles: list[tuple[str, str]]  # image and what it is; an empty image where there is no mask


def drawn_length(document: Document) -> float:
    """Return the length at which masks and numbers are shown."""
    return float(document["objectives"][0]["perturbations"][0]["drawn_epsilon"])


def chart_groups(t: Catalogue, document: Document) -> list[ChartGroup]:
    """Return curves of masks of all pixels, of edge pixels, and of both with clipped pixels."""
    groups = []
    for part in PARTS:
        for edge in (False, True):
            curves = [curve for curve in document["curves"] if curve["edge"] == edge]
            if curves:
                heading = t(f"attack.curves.{part}.{'edge' if edge else 'whole'}")
                groups.append(chart_group(t, document["epsilons"], curves, part, heading))
    return groups


def chart_group(
    t: Catalogue, epsilons: list[float], curves: list[dict[str, Any]], part: str, heading: str
) -> ChartGroup:
    """Return accuracy, mean margin and target rate of some kinds."""
    names = [t(f"attack.kind.{curve['kind']}") for curve in curves]
    margins = [value for curve in curves for value in curve[part]["margin"]]
    axes = {"accuracy": SHARES, "margin": margin_axis(margins), "target_rate": SHARES}
    charts = []
    for name, axis in axes.items():
        ends = [
            t("attack.curves.end", name=kind, value=axis.text(curve[part][name][-1]))
            for kind, curve in zip(names, curves, strict=True)
        ]
        last = t("attack.curves.text", epsilon=f"{epsilons[-1]:g}", list=t("list.comma").join(ends))
        title = t(f"attack.effect.{name}")
        rows = [(kind_class(curve), curve[part][name]) for curve in curves]
        chart = effect_chart(title, last, t("attack.curves.x"), epsilons, rows, axis)
        charts.append((title, chart))
    legend = [(swatch(kind_class(curve)), name) for curve, name in zip(curves, names, strict=True)]
    return ChartGroup(heading, legend, charts)


def number_rows(t: Catalogue, document: Document) -> list[NumberRow]:
    """Return each kind at the drawn length."""
    place = document["epsilons"].index(drawn_length(document))
    return [
        NumberRow(
            name=t(f"attack.kind.{curve['kind']}"),
            accuracy=percent(curve["effect"]["accuracy"][place]),
            margin=fixed(curve["effect"]["margin"][place]),
            rate=percent(curve["effect"]["target_rate"][place]),
            clipped=percent(curve["clipped"]["accuracy"][place]),
            gap=fixed(curve["gap"][place], 3),
            reads=t.listing([t(f"attack.reads.{item}") for item in curve["reads"]]),
        )
        for curve in document["curves"]
    ]


def mask_painter(document: Document) -> Painter:
    """Return how masks are drawn: one scale for all, the median of the largest components."""
    return Painter.of(
        document["model"]["input_shape"],
        (
            mask["vector"]
            for objective in document["objectives"]
            for mask in objective["perturbations"]
        ),
    )


def mask_rows(t: Catalogue, document: Document, painter: Painter) -> list[MaskRow]:
    """Return the first mask of every kind, a row for each objective."""
    names = class_names(document)
    rows = []
    for objective in document["objectives"][:MOST_OBJECTIVES]:
        name = objective_name(t, objective, names)
        first = {mask["kind"]: mask for mask in objective["perturbations"] if mask["member"] == 1}
        tiles = []
        for curve in document["curves"]:
            mask = first.get(curve["kind"])
            alt = t("attack.masks.alt", kind=t(f"attack.kind.{curve['kind']}"), name=name)
            tiles.append(("" if mask is None else painter.vector(mask["vector"]), alt))
        rows.append(MaskRow(name, tiles))
    return rows


def kind_class(curve: dict[str, Any]) -> str:
    """Return the class that colours a kind of mask; the edge shares the colour of the whole."""
    return f"kind-{curve['kind'].removesuffix('_edge').replace('_', '-')}"


def objective_name(t: Catalogue, objective: dict[str, Any], names: list[str]) -> str:
    """Return from which class to which."""
    source = objective["source"]
    first = t("attack.masks.all") if source is None else names[source]
    return t("attack.masks.name", source=first, target=names[objective["target"]])


def proof(t: Catalogue, document: Document) -> str:
    """Return whether the comparison with the optimal masks held, with its numbers."""
    objectives = document["objectives"]
    return t(
        "attack.proof.pass" if document["holds"] else "attack.proof.fail",
        excess=scientific(max(objective["worst_excess"] for objective in objectives)),
        gap=scientific(max(objective["proof_gap"] for objective in objectives)),
    )


def kinds(t: Catalogue, document: Document) -> list[tuple[str, str]]:
    """Return each kind and how its masks are made."""
    values = {
        "count": whole(document["random_perturbations"]),
        "restarts": whole(document["restarts"]),
    }
    return [
        (t(f"attack.kind.{curve['kind']}"), t(f"attack.made.{curve['kind']}", **values))
        for curve in document["curves"]
    ]


def limits(t: Catalogue, document: Document) -> list[str]:
    """Return what the page does not say, one sentence each."""
    clipped = max(objective["clipped_images"] for objective in document["objectives"])
    return [
        t("attack.not_proven"),
        t("attack.limits.mean"),
        t("attack.limits.clipped", count=whole(clipped)),
        t("attack.limits.edge", count=whole(document["edge_pixels"])),
        t("attack.limits.layer"),
    ]
