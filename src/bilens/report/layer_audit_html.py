"""The report of a layer audit as one HTML page: no script, no network, everything inside."""

from __future__ import annotations

from typing import Any

from bilens.records.base import displayable
from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.document import Document
from bilens.report.html import embedded_json, environment
from bilens.report.numbers import whole
from bilens.report.sections import reproduction
from bilens.report.sections.conditions import condition_lines
from bilens.report.sections.difference import difference_section
from bilens.report.sections.layer_directions import direction_cards
from bilens.report.sections.layer_table import about, layer_charts, layer_rows
from bilens.report.sections.overview import test_data
from bilens.report.sections.verdict import (
    ICONS,
    overall_outcome,
    overall_sentence,
    verdict_findings,
)

SECTIONS = ("verdict", "charts", "table", "directions", "difference", "reproduce", "scope")
LIMITS = ("layer", "fit", "norm", "chance", "meaning", "triggers")


def render_layer_audit(document: Document, lang: str = "en") -> str:
    """Return the page of a checked document.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t = load_catalogue(lang)
    template = environment().get_template("layer_audit.html.j2")
    return template.render(page_values(t, document), document_json=embedded_json(document))


def page_values(t: Catalogue, original: Document) -> dict[str, Any]:
    """Return everything that the template prints."""
    document = displayable(original)
    outcome = overall_outcome(document)
    cards, difference = direction_cards(t, document), difference_section(t, document)
    present = {"directions": bool(cards), "difference": difference is not None}
    return {
        "t": t,
        "lang": t.lang,
        "kind": "layer_audit",
        "keys": "layers.page",
        "footer": "layers.page.footer",
        "sections": [name for name in SECTIONS if present.get(name, True)],
        "title": document["source"]["path"] or document["model"]["kind"],
        "facts": layer_facts(t, document),
        "num_classes": len(document["layers"]),
        "overall": outcome,
        "overall_icon": ICONS[outcome],
        "overall_sentence": overall_sentence(t, document),
        "findings": verdict_findings(t, document),
        "asked": condition_lines(t, document),
        "difference": difference,
        "charts": layer_charts(t, document),
        "rows": layer_rows(t, document),
        "cards": cards,
        "steps": reproduction.steps(t, document, original),
        "provenance": reproduction.provenance(document),
        "conventions": [],
        "limits": [
            t(f"layers.limits.{key}", samples=whole(document["null_samples"])) for key in LIMITS
        ],
        "version": document["reproduce"]["versions"].get("bilens", ""),
    }


def layer_facts(t: Catalogue, document: Document) -> list[tuple[str, str]]:
    """Return terms and values, in the order in which they are shown."""
    model, layers = document["model"], document["layers"]
    kinds = list(dict.fromkeys(map(about, layers)))
    pairs = [("facts.model", model["kind"])]
    if document["source"]["path"]:
        pairs.append(("facts.file", document["source"]["path"]))
    pairs += [
        ("layers.facts.layers", whole(model["num_layers"])),
        ("layers.facts.kind", kinds[0] if len(kinds) == 1 else t("layers.facts.several")),
        ("layers.facts.dtype", model["dtype"]),
        ("facts.data", test_data(t, document)),
    ]
    return [(t(key), value) for key, value in pairs]
