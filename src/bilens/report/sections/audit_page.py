"""The page of an audit: for each reading that is there, its sections, in one order."""

from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.class_readings import ClassReadings
from bilens.records.column_readings import ColumnReadings
from bilens.records.common import ModelReading, Reading
from bilens.records.given_inputs import GivenInputs
from bilens.records.image_warnings import Overfitting
from bilens.records.layer_readings import Difference, LayerReadings
from bilens.report.markup import Content, items
from bilens.report.sections.certificate_page import proven
from bilens.report.sections.classes import class_page, class_sections
from bilens.report.sections.difference import column_sentences
from bilens.report.sections.image_checks import warnings
from bilens.report.sections.input_findings import inputs_section
from bilens.report.sections.layers import difference, layer_page, layer_sections
from bilens.report.sections.overview import Page, class_names, class_painter, exactness
from bilens.report.sections.people import judged_parts
from bilens.report.sections.performance_section import performance
from bilens.report.sections.table_page import column_page, column_sections, reading as table_reading
from bilens.report.text import Catalogue

Sections: TypeAlias = Iterable[tuple[str, Markup]]  # by their names in the navigation
Draw: TypeAlias = Callable[[Catalogue, Audit, Any], Sections]


def performance_section(t: Catalogue, audit: Audit, _: Reading) -> Sections:
    yield "performance", performance(t, audit.performance, audit.data)


def exactness_section(t: Catalogue, audit: Audit, found: ClassReadings) -> Sections:
    yield "exactness", exactness(t, audit, found)


def given_section(t: Catalogue, audit: Audit, found: GivenInputs) -> Sections:
    yield "given", inputs_section(t, found, class_names(audit), class_painter(audit))


def warning_section(t: Catalogue, audit: Audit, found: Overfitting) -> Sections:
    if audit.triggers is not None:
        yield "warnings", warnings(t, audit, found, audit.triggers)


def proven_section(t: Catalogue, audit: Audit, _: ClassReadings) -> Sections:
    found = audit.guarantees
    more = t("proven.more" if found else "proven.none")
    yield "proven", proven(t, audit.exactness, audit.model.one_layer, found, more, "proof")


def difference_section(t: Catalogue, audit: Audit, found: Difference) -> Sections:
    lead, changes = list[Content](), audit.column_changes
    if changes is not None:
        lead.append(items(column_sentences(t, audit, changes), "sentences"))
    names = painter = None
    if audit.classes is not None:
        names, painter = class_names(audit), class_painter(audit)
    yield "difference", difference(t, found, names, painter, lead)


def table_section(t: Catalogue, _: Audit, found: ColumnReadings) -> Sections:
    yield "reading", table_reading(t, found)


# In the order of a page: the type of a reading, and the sections that are there where it is.
SECTIONS: Final[tuple[tuple[type[Reading], Draw], ...]] = (
    (ClassReadings, exactness_section),
    (ModelReading, performance_section),
    (ClassReadings, class_sections),
    (LayerReadings, layer_sections),
    (ColumnReadings, column_sections),
    (GivenInputs, given_section),
    (Overfitting, warning_section),
    (ClassReadings, proven_section),
    (Difference, difference_section),
    (ColumnReadings, table_section),
)
# What the page is about besides: its title, facts and limits.
PAGES: Final[Mapping[type[Reading], Callable[[Catalogue, Audit, Any, Sections], Page]]] = {
    ClassReadings: class_page,
    LayerReadings: layer_page,
    ColumnReadings: column_page,
}


def audit_page(t: Catalogue, audit: Audit) -> Page:
    """Return the page of an audit: what every audit says, then the sections of its readings."""
    parts, there = judged_parts(t, audit), audit.readings()
    for kind, draw in SECTIONS:
        for reading in there:
            if isinstance(reading, kind):
                parts += draw(t, audit, reading)
    found: Reading = getattr(audit, audit.read_as)
    return PAGES[type(found)](t, audit, found, parts)
