"""The page of an audit: for each reading that is there, its sections, in one order."""

from collections.abc import Callable, Mapping
from typing import Any, Final, TypeAlias

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.class_readings import ClassReadings
from bilens.records.column_readings import ColumnReadings
from bilens.records.common import ModelReading, Reading
from bilens.records.given_inputs import GivenInputs
from bilens.records.image_warnings import Overfitting
from bilens.records.inventory import Inventory
from bilens.records.layer_readings import Difference, LayerReadings
from bilens.report.markup import Content, items
from bilens.report.sections.certificate_page import proven
from bilens.report.sections.classes import class_page, classes, ranks, truncation
from bilens.report.sections.difference import column_sentences
from bilens.report.sections.image_checks import warnings
from bilens.report.sections.input_findings import inputs_section
from bilens.report.sections.inventory_section import inventory_section
from bilens.report.sections.layers import charts, difference, directions, layer_page, layer_table
from bilens.report.sections.overview import Page, Parts, class_names, class_painter, exactness
from bilens.report.sections.people import judged_parts
from bilens.report.sections.performance_section import performance
from bilens.report.sections.predictions import predictions
from bilens.report.sections.seen_inputs import seen_units
from bilens.report.sections.table_page import column_page, columns, reading, rows
from bilens.report.text import Catalogue

Draw: TypeAlias = Callable[[Catalogue, Audit, Any], Markup]


def proven_section(t: Catalogue, audit: Audit, _: ClassReadings) -> Markup:
    """Return the guarantees of a classifier, or that there are none."""
    found = audit.guarantees
    more = t("proven.more" if found else "proven.none")
    return proven(t, audit.exactness, audit.model.one_layer, found, more, "proof")


def difference_section(t: Catalogue, audit: Audit, found: Difference) -> Markup:
    """Return the changes from a baseline; of a table with those of its columns first."""
    lead, changes = list[Content](), audit.column_changes
    if changes is not None:
        lead.append(items(column_sentences(t, audit, changes), "sentences"))
    names = painter = None
    if audit.classes is not None:
        names, painter = class_names(audit), class_painter(audit)
    return difference(t, found, names, painter, lead)


def rows_asked(t: Catalogue, record: Audit, found: ColumnReadings) -> Markup:
    """Return the rows that were asked for, which stand in front of the columns."""
    asked = any(row.kind == "asked" for row in found.rows)
    return rows(t, record, found) if asked else Markup()


def rows_chosen(t: Catalogue, record: Audit, found: ColumnReadings) -> Markup:
    """Return the rows where none was asked for."""
    asked = any(row.kind == "asked" for row in found.rows)
    return Markup() if asked else rows(t, record, found)


# In the order of a page: a type of readings, and a section that is there where one of it is.
SECTIONS: Final[tuple[tuple[type[Reading], str, Draw], ...]] = (
    (Inventory, "inventory", inventory_section),
    (ClassReadings, "exactness", exactness),
    (ModelReading, "performance", performance),
    (ClassReadings, "classes", classes),
    (ClassReadings, "ranks", ranks),
    (ClassReadings, "truncation", truncation),
    (ClassReadings, "predictions", predictions),
    (LayerReadings, "charts", charts),
    (LayerReadings, "table", layer_table),
    (LayerReadings, "seen", seen_units),
    (LayerReadings, "directions", directions),
    (ColumnReadings, "rows", rows_asked),
    (ColumnReadings, "columns", columns),
    (ColumnReadings, "rows", rows_chosen),
    (GivenInputs, "given", inputs_section),
    (Overfitting, "warnings", warnings),
    (ClassReadings, "proven", proven_section),
    (Difference, "difference", difference_section),
    (ColumnReadings, "reading", reading),
)
# What the page is about besides: its title, facts and limits.
PAGES: Final[Mapping[type[Reading], Callable[[Catalogue, Audit, Any, Parts], Page]]] = {
    ClassReadings: class_page,
    LayerReadings: layer_page,
    ColumnReadings: column_page,
}


def audit_page(t: Catalogue, audit: Audit) -> Page:
    """Return the page of an audit: what every audit says, then the sections of its readings."""
    parts, there = judged_parts(t, audit), audit.readings()
    for kind, name, draw in SECTIONS:
        parts += ((name, draw(t, audit, found)) for found in there if isinstance(found, kind))
    found: Reading = getattr(audit, audit.read_as)
    return PAGES[type(found)](t, audit, found, parts)
