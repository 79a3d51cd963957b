"""The tables behind the proven statements: distances, truncation, use of inputs, rounding."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import radii_chart
from bilens.report.document import Document
from bilens.report.numbers import percent, quantity, signed_quantity, whole
from bilens.report.sections.names import class_names, input_name
from bilens.report.sections.proven import (
    box,
    floored,
    floored_percent,
    raised,
    rounding_numbers,
    up,
)
from bilens.report.svg import Figure

ROWS = 10  # steps of the table of certified accuracy
LISTED = 20  # unused inputs


@dataclass(frozen=True)
class Row:
    """One row of a table."""

    cells: list[str]
    marked: bool = False


@dataclass(frozen=True)
class TableOf:
    """A table with words for its columns."""

    caption: str
    columns: list[str]
    rows: list[Row]


@dataclass(frozen=True)
class RadiiSection:
    """What the section on distances prints."""

    chart: Figure
    rows: list[tuple[str, str]]
    notes: list[tuple[str, str]]
    status_caption: str
    statuses: list[tuple[str, str]]


def radii_section(t: Catalogue, document: Document) -> RadiiSection | None:
    """Return curve, tables and notes; None if no data were given."""
    radii = document["l2"]
    if radii is None:
        return None
    curve = radii["curve"]
    step = max((len(curve) - 1) // ROWS, 1)
    return RadiiSection(
        chart=radii_chart(
            t, [(point["radius"], point["share"]) for point in curve], radii["median"]
        ),
        rows=[
            (quantity(point["radius"]), floored_percent(point["share"])) for point in curve[::step]
        ],
        notes=radii_notes(t, document),
        status_caption=t("radii.statuses", total=whole(radii["num_inputs"])),
        statuses=[
            (t(f"radii.{status}") if t.has(f"radii.{status}") else status, whole(count))
            for status, count in radii["statuses"].items()
            if count
        ],
    )


def radii_notes(t: Catalogue, document: Document) -> list[tuple[str, str]]:
    """Return what holds within the range of inputs, and where every entry may change."""
    radii, bounds, ends = document["l2"], document["linf"], box(document)
    examples, inside = whole(radii["num_examples"]), whole(radii["num_examples_in_box"])
    notes = [(t("radii.box", **ends), t("radii.box_text", examples=examples, inside=inside))]
    if bounds is not None:
        medians = (bounds["median_lower"], bounds["median_upper"])
        lower, upper = (
            t("radii.unlimited") if value is None else show(value)
            for value, show in zip(medians, (floored, raised), strict=True)
        )
        text = t(
            "radii.linf.text",
            total=whole(bounds["num_inputs"]),
            lower=lower,
            upper=upper,
            restarts=whole(bounds["restarts"]),
            steps=whole(bounds["steps"]),
        )
        notes.append((t("radii.linf.term"), text))
    return notes


def truncation_table(t: Catalogue, cut: dict[str, Any]) -> TableOf:
    """Return one row for each number of eigenvectors kept."""
    with_data = cut["points"][0]["certified"] is not None
    keys = ["bound", "least"]
    keys += ["certified", "agreement", "mean", "deviation"] if with_data else []
    rows = []
    for point in cut["points"]:
        cells = [whole(point["k"]), raised(max(point["bounds"])), raised(min(point["bounds"]))]
        if with_data:
            cells += [
                floored_percent(point["certified"]),
                percent(point["agreement"]),
                signed_quantity(max(point["mean"], key=abs)),
                quantity(max(point["deviation"])),
            ]
        rows.append(Row(cells, point["k"] == cut["chosen"]))
    return TableOf(t("cut.caption"), [t("truncation.k"), *(t(f"cut.{key}") for key in keys)], rows)


def truncation_notes(t: Catalogue, cut: dict[str, Any]) -> list[str]:
    """Return how k was chosen, and what the last columns are."""
    if cut["points"][0]["certified"] is None:
        return []
    level, notes = percent(cut["level"], 0), []
    if cut["chosen_by"] == "agreement":
        notes.append(t("cut.chosen", k=whole(cut["chosen"]), level=level))
    elif cut["chosen"] is None:
        notes.append(t("cut.not_enough", level=level))
    return [*notes, t("cut.note")]


def unused_inputs(t: Catalogue, document: Document) -> str:
    """Return the inputs that are proven unused, or nothing."""
    unused = document["input_use"]["unused"]
    if not unused:
        return ""
    if document["model"].get("input_names") is None:
        names = [whole(place) for place in unused[:LISTED]]
    else:
        names = [input_name(t, document, place) for place in unused[:LISTED]]
    if len(unused) > LISTED:
        names.append(t("use.more", count=whole(len(unused) - LISTED)))
    return t("use.unused", list=t("list.comma").join(names))


def influence_table(t: Catalogue, document: Document) -> TableOf:
    """Return the strongest input of each class."""
    names = class_names(document)
    rows = [
        Row(
            [
                names[item["output"]],
                input_name(t, document, item["input"]),
                raised(item["bound"]),
                floored(item["reached"]),
            ]
        )
        for item in document["input_use"]["influence"]
    ]
    keys = ("class", "input", "bound", "reached")
    return TableOf(t("use.caption"), [t(f"use.{key}") for key in keys], rows)


def rounding_table(t: Catalogue, document: Document) -> TableOf:
    """Return one row for each format that weights can be stored in."""
    rows = []
    for item in document["stability"]:
        if item["refused"] is not None:
            rows.append(Row([item["kind"], *[t("round.nothing")] * 4]))
            continue
        numbers = rounding_numbers(item)
        count = t("round.count", count=whole(numbers.guaranteed), total=whole(numbers.total))
        angle = t("round.degrees", angle=raised(numbers.angle, 2))
        rows.append(
            Row(
                [
                    item["kind"],
                    raised(numbers.movement, 2),
                    percent(up(numbers.share, 3), 2),
                    count,
                    angle if numbers.guaranteed else t("round.nothing"),
                ]
            )
        )
    keys = ("kind", "movement", "share", "guaranteed", "angle")
    return TableOf(t("round.caption"), [t(f"round.{key}") for key in keys], rows)
