"""A certificate as one HTML page: no script, no network, everything inside."""

from __future__ import annotations

from typing import Any

from bilens.records.base import displayable
from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.document import Document
from bilens.report.html import embedded_json, environment
from bilens.report.sections import guarantees, proven, reproduction
from bilens.report.sections.names import class_names
from bilens.report.sections.overview import facts

SECTIONS = ("proven", "radii", "truncation", "inputs", "rounding", "reproduce", "scope")
LIMITS = ("model", "data", "meaning", "right")


def render_certificate(document: Document, lang: str = "en") -> str:
    """Return the page of a checked certificate document.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t = load_catalogue(lang)
    template = environment().get_template("certificate.html.j2")
    return template.render(page_values(t, document), document_json=embedded_json(document))


def page_values(t: Catalogue, original: Document) -> dict[str, Any]:
    """Return everything that the template prints."""
    document = displayable(original)
    cut = document["truncation"]
    return {
        "t": t,
        "lang": t.lang,
        "kind": "certificate",
        "keys": "certify",
        "footer": "certify.footer",
        "sections": SECTIONS,
        "title": document["source"]["path"] or document["model"]["kind"],
        "facts": facts(t, document),
        "num_classes": len(class_names(document)),
        "ground": proven.common_ground(t, document),
        "statements": proven.statements(t, document),
        "more": "",
        "radii": guarantees.radii_section(t, document),
        "cut": guarantees.truncation_table(t, cut),
        "cut_lead": t("cut.lead", radius=proven.floored(cut["radius"], 6)),
        "cut_notes": guarantees.truncation_notes(t, cut),
        "unused": guarantees.unused_inputs(t, document),
        "influence": guarantees.influence_table(t, document),
        "rounding": guarantees.rounding_table(t, document),
        "steps": reproduction.steps(t, document, original),
        "provenance": reproduction.provenance(document),
        "conventions": [],
        "limits": [t(f"limits.certify.{key}") for key in LIMITS],
        "version": document["reproduce"]["versions"].get("bilens", ""),
    }
