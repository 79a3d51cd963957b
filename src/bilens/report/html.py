"""The reports as HTML pages: no script, no network, everything inside."""

from __future__ import annotations

from functools import cache

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import NO_LETTERS, Document, displayable, json_text, kind_of
from bilens.records.guarantees import Certificate
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.records.trace import Trace
from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.page import Page
from bilens.report.sections.attack import attack_page
from bilens.report.sections.classes import audit_page
from bilens.report.sections.guarantees import certificate_page
from bilens.report.sections.layers import layer_audit_page
from bilens.report.sections.reproduction import AnyReport, reproduce, scope
from bilens.report.sections.tables import table_page
from bilens.report.sections.trace import trace_page
from bilens.report.token_text import MARKS


def page_of(t: Catalogue, record: AnyReport) -> Page:
    """Return the page of a record whose texts can be shown."""
    if isinstance(record, Audit):
        return audit_page(t, record)
    if isinstance(record, LayerAudit):
        return layer_audit_page(t, record)
    if isinstance(record, TableAudit):
        return table_page(t, record)
    if isinstance(record, Certificate):
        return certificate_page(t, record)
    if isinstance(record, Attack):
        return attack_page(t, record)
    return trace_page(t, record)


def render_html(record: Document, lang: str = "en") -> str:
    """Return a record as one HTML page, with the record itself inside."""
    assert isinstance(record, AnyReport), "a record that has a page"
    t = load_catalogue(lang)
    shown = displayable(record, MARKS if isinstance(record, Trace) else NO_LETTERS)
    page = page_of(t, shown)
    parts = [(name, markup) for name, markup in page.parts if markup]
    parts.append(("reproduce", reproduce(t, shown, record, page.conventions)))
    parts.append(("scope", scope(t, page.limits)))
    template = environment().get_template("page.html.j2")
    return template.render(
        t=t,
        page=page,
        parts=parts,
        kind=kind_of(type(record)),
        version=shown.reproduce.versions.get("bilens", ""),
        document_json=embedded_json(record),
    )


@cache
def environment() -> Environment:
    """Return the templates, with every value escaped and every unknown name an error."""
    return Environment(
        loader=PackageLoader("bilens.report"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def embedded_json(record: AnyReport) -> Markup:
    """Return a record for a script element: equal under `json.loads`, and it cannot end it."""
    text = json_text(record)  # ASCII, so U+2028 and U+2029 are escaped already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character is left that HTML would read
