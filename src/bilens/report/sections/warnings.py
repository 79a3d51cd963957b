"""What may be wrong with a classifier: overfitting and triggers, read without data."""

from __future__ import annotations

from markupsafe import Markup

from bilens.records.audit import Audit, Overfitting, OverfittingPart, Triggers
from bilens.report.blocks import (
    Column,
    Content,
    Row,
    drawings,
    heading,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import trigger_patch
from bilens.report.numbers import fixed, quantity, signed_quantity
from bilens.report.sections.overview import class_names
from bilens.report.sections.rules import points

DRAWN = 3  # patches


def warnings(t: Catalogue, record: Audit) -> Markup:
    """Return the section; a remark for a document from before there was one."""
    overfitting, triggers = record.overfitting, record.triggers
    if overfitting is None or triggers is None:
        older = paragraph(t("warnings.older"))
        return section("warnings", t("warnings.heading"), older)
    readings = [reading(t, part) for part in overfitting.parts]
    columns = [
        Column(t("overfitting.reading"), numeric=False),
        Column(t("overfitting.value")),
        Column(t("ranks.null"), class_="null"),
        Column(t("overfitting.meaning"), numeric=False, class_="meaning"),
    ]
    return section(
        "warnings",
        t("warnings.heading"),
        heading(t("overfitting.heading")),
        paragraph(overfitting_sentence(t, overfitting)),
        quiet(t("overfitting.scope")),
        table(t, t("overfitting.caption"), columns, readings),
        heading(t("triggers.heading")),
        paragraph(triggers_sentence(t, triggers)),
        quiet(t("triggers.scope")),
        *patches(t, record, triggers),
    )


def overfitting_sentence(t: Catalogue, found: Overfitting) -> str:
    """Return the score with its threshold, or why there is none."""
    if found.score is None or found.threshold is None:
        return t("overfitting.none", reason=reason(t, found.reason))
    return t("overfitting.score", score=points(found.score), threshold=points(found.threshold))


def reading(t: Catalogue, part: OverfittingPart) -> tuple[str, str, str, str]:
    """Return name, value, null interval and meaning; one of an unknown name has its name alone."""
    null, known = part.null_interval, t.has(f"overfitting.{part.name}.term")
    return (
        t(f"overfitting.{part.name}.term") if known else part.name,
        quantity(part.value),
        t("overfitting.no_null")
        if null is None
        else f"{quantity(null.median)} ({quantity(null.low)}–{quantity(null.high)})",
        t(f"overfitting.{part.name}.text") if known else "",
    )


def triggers_sentence(t: Catalogue, found: Triggers) -> str:
    """Return the highest score beside threshold and null interval, or why there is none."""
    null = found.null_interval
    if found.score is None or found.threshold is None or null is None:
        return t("triggers.none", reason=reason(t, found.reason))
    return t(
        "triggers.score",
        score=fixed(found.score, 1),
        threshold=fixed(found.threshold, 1),
        low=fixed(null.low, 1),
        high=fixed(null.high, 1),
    )


def patches(t: Catalogue, record: Audit, found: Triggers) -> list[Markup]:
    """Return the highest-scoring patch of each class, the first ones with a picture."""
    if not found.patches:
        return []
    names = class_names(record.model)
    pictures: list[tuple[str, Content]] = []
    rows = []
    for patch in found.patches:
        name = names[patch.target]
        if len(pictures) < DRAWN:
            corner = (patch.row, patch.column), patch.side, record.model.input_shape
            picture = trigger_patch(t, *corner, name)
            pictures.append((f"{t('ranks.class')} {name}", picture))
        cells = (
            name,
            t("triggers.position", row=patch.row, column=patch.column, side=patch.side),
            fixed(patch.score, 1),
            signed_quantity(patch.effect),
        )
        marked = found.threshold is not None and patch.score > found.threshold
        rows.append(Row(cells, "marked" if marked else None))
    columns = [
        Column(t("ranks.class"), numeric=False),
        Column(t("triggers.where"), numeric=False),
        Column(t("triggers.column_score")),
        Column(t("triggers.effect")),
    ]
    return [drawings(pictures, "patches"), table(t, t("triggers.caption"), columns, rows)]


def reason(t: Catalogue, key: str) -> str:
    """Return why a score does not apply."""
    return t(f"warnings.{key}") if t.has(f"warnings.{key}") else key
