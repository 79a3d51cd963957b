"""The page of an audit: for each reading that is there, its sections, in one order."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, Final, TypeAlias

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.class_readings import ClassReadings
from bilens.records.column_readings import ColumnChanges, ColumnReadings
from bilens.records.common import Reading
from bilens.records.given_inputs import GivenInputs
from bilens.records.guarantees import Guarantees
from bilens.records.image_warnings import Overfitting, Triggers
from bilens.records.layer_readings import Difference, LayerReadings
from bilens.records.performance import Performance
from bilens.report.markup import Content, items
from bilens.report.sections.certificate_page import proven
from bilens.report.sections.classes import class_page, class_sections
from bilens.report.sections.difference import column_sentences
from bilens.report.sections.image_checks import warnings
from bilens.report.sections.input_findings import inputs_section
from bilens.report.sections.layers import difference, layer_page, layer_sections
from bilens.report.sections.overview import Page, class_names, class_painter
from bilens.report.sections.people import judged_parts
from bilens.report.sections.performance_section import performance
from bilens.report.sections.table_page import column_page, column_sections
from bilens.report.text import Catalogue

Sections: TypeAlias = Iterable[tuple[str, Markup]]  # by their names in the navigation
Draw: TypeAlias = Callable[[Catalogue, Audit, Any], Sections]
# By the names of sections: what every audit says, its readings, what changed, how they were read.
ORDER: Final = (
    "verdict",
    "checks",
    "people",
    "coverage",
    "exactness",
    "performance",
    "classes",
    "ranks",
    "truncation",
    "predictions",
    "charts",
    "table",
    "directions",
    "columns",
    "rows",
    "given",
    "warnings",
    "proven",
    "difference",
    "reading",
)


def performance_sections(t: Catalogue, audit: Audit, found: Performance) -> Sections:
    yield "performance", performance(t, found, audit.data)


def input_sections(t: Catalogue, audit: Audit, found: GivenInputs) -> Sections:
    yield "given", inputs_section(t, found, class_names(audit), class_painter(audit))


def warning_sections(t: Catalogue, audit: Audit, found: Overfitting) -> Sections:
    if audit.triggers is not None:
        yield "warnings", warnings(t, audit, found, audit.triggers)


def guarantee_sections(t: Catalogue, audit: Audit, found: Guarantees) -> Sections:
    model = audit.model.one_layer
    yield "proven", proven(t, audit.exactness, model, found, t("proven.more"), "proof")


def difference_sections(t: Catalogue, audit: Audit, found: Difference) -> Sections:
    lead, changes = list[Content](), audit.column_changes
    if changes is not None:
        lead.append(items(column_sentences(t, audit, changes), "sentences"))
    names = painter = None
    if audit.classes is not None:
        names, painter = class_names(audit), class_painter(audit)
    yield "difference", difference(t, found, names, painter, lead)


# Type of a reading → its sections; None where they are drawn with those of another.
SECTIONS: Final[Mapping[type[Reading], Draw | None]] = {
    Performance: performance_sections,
    ClassReadings: class_sections,
    LayerReadings: layer_sections,
    ColumnReadings: column_sections,
    GivenInputs: input_sections,
    Overfitting: warning_sections,
    Triggers: None,  # with overfitting
    Guarantees: guarantee_sections,
    Difference: difference_sections,
    ColumnChanges: None,  # with the difference
}
# What the page is about besides: its title, facts and limits.
PAGES: Final[Mapping[type[Reading], Callable[[Catalogue, Audit, Any, Sections], Page]]] = {
    ClassReadings: class_page,
    LayerReadings: layer_page,
    ColumnReadings: column_page,
}


def audit_page(t: Catalogue, audit: Audit) -> Page:
    """Return the page of an audit."""
    found: Reading = getattr(audit, audit.read_as)
    return PAGES[type(found)](t, audit, found, [*audit_sections(t, audit)])


def audit_sections(t: Catalogue, audit: Audit) -> Iterator[tuple[str, Markup]]:
    """Yield the sections of an audit in their order."""
    drawn = dict(judged_parts(t, audit)) | {"performance": performance(t, None, None)}
    for reading in audit.readings():
        if (draw := SECTIONS[type(reading)]) is not None:
            drawn |= dict(draw(t, audit, reading))
    order = [*ORDER]
    if audit.columns is not None and any(row.kind == "asked" for row in audit.columns.rows):
        order.remove("rows")  # what was asked for comes first
        order.insert(order.index("columns"), "rows")
    yield from ((name, drawn[name]) for name in order if name in drawn)
