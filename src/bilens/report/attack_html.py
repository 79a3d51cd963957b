"""The report of an attack as one HTML page: no script, no network, everything inside."""

from __future__ import annotations

from bilens.records.base import displayable
from bilens.report.catalogue import load_catalogue
from bilens.report.document import Document
from bilens.report.html import embedded_json, environment, scale_of
from bilens.report.sections import attack, reproduction
from bilens.report.sections.overview import facts

SECTIONS = ("proof", "curves", "numbers", "masks", "reproduce", "scope")


def render_attack(original: Document, lang: str = "en") -> str:
    """Return the page of a checked document of an attack.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t, document = load_catalogue(lang), displayable(original)
    painter = attack.mask_painter(document)
    template = environment().get_template("attack.html.j2")
    return template.render(
        t=t,
        lang=t.lang,
        kind="attack",
        keys="attack.page",
        footer="attack.page.footer",
        num_classes=document["model"]["d_output"],
        sections=SECTIONS,
        title=document["source"]["path"] or document["model"]["kind"],
        facts=facts(t, document),
        holds=document["holds"],
        proof=attack.proof(t, document),
        groups=attack.chart_groups(t, document),
        epsilon=f"{attack.drawn_length(document):g}",
        rows=attack.number_rows(t, document),
        kinds=[curve["kind"] for curve in document["curves"]],
        masks=attack.mask_rows(t, document, painter),
        num_objectives=len(document["objectives"]),
        scale=scale_of(painter),
        strip=painter.is_strip,
        steps=reproduction.steps(t, document, original),
        provenance=reproduction.provenance(document),
        conventions=attack.kinds(t, document),
        limits=attack.limits(t, document),
        version=document["reproduce"]["versions"].get("bilens", ""),
        document_json=embedded_json(original),
    )
