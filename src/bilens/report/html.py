"""The report as one HTML page: no script, no network, everything inside."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bilens.records.base import displayable, json_text
from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.document import Document
from bilens.report.numbers import decimals, fixed
from bilens.report.raster import Painter, colour_bar
from bilens.report.sections import proven, reproduction
from bilens.report.sections.accuracy import accuracy_section
from bilens.report.sections.classes import class_cards
from bilens.report.sections.conditions import condition_lines
from bilens.report.sections.difference import difference_section
from bilens.report.sections.exactness import exactness_section
from bilens.report.sections.names import class_names
from bilens.report.sections.overview import facts
from bilens.report.sections.predictions import prediction_cards
from bilens.report.sections.ranks import rank_rows
from bilens.report.sections.truncation import truncation_section
from bilens.report.sections.verdict import (
    ICONS,
    overall_outcome,
    overall_sentence,
    verdict_findings,
)
from bilens.report.sections.warnings import warnings_section

SECTIONS = (
    "verdict",
    "exactness",
    "accuracy",
    "classes",
    "ranks",
    "truncation",
    "predictions",
    "warnings",
    "proven",
    "difference",
    "reproduce",
    "scope",
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


def render_html(document: Document, lang: str = "en") -> str:
    """Return the page of a checked audit document.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t = load_catalogue(lang)
    template = environment().get_template("audit.html.j2")
    return template.render(page_values(t, document), document_json=embedded_json(document))


def page_values(t: Catalogue, original: Document) -> dict[str, Any]:
    """Return everything that the template prints."""
    document = displayable(original)
    painter = Painter.of(
        document["model"]["input_shape"],
        (
            pair["vector"]
            for reading in document["classes"]
            for pair in (*reading["positive"], *reading["negative"])
        ),
    )
    outcome = overall_outcome(document)
    guarantees = document["guarantees"]
    difference = difference_section(t, document, painter.vector)
    return {
        "t": t,
        "lang": t.lang,
        "sections": [name for name in SECTIONS if name != "difference" or difference],
        "kind": "audit",
        "keys": "page",
        "footer": "footer.document",
        "title": document["source"]["path"] or document["model"]["kind"],
        "facts": facts(t, document),
        "num_classes": len(class_names(document)),
        "overall": outcome,
        "overall_icon": ICONS[outcome],
        "overall_sentence": overall_sentence(t, document),
        "asked": condition_lines(t, document),
        "difference": difference,
        "findings": verdict_findings(t, document),
        "exactness": exactness_section(t, document),
        "accuracy": accuracy_section(t, document),
        "cards": class_cards(t, document, painter),
        "scale": scale_of(painter),
        "strip": painter.is_strip,
        "ranks": rank_rows(t, document),
        "truncation": truncation_section(t, document),
        "predictions": prediction_cards(t, document, painter),
        "warnings": warnings_section(t, document),
        "ground": proven.common_ground(t, document),
        "statements": proven.statements(t, {**document, **guarantees}) if guarantees else [],
        "more": t("proven.more" if guarantees else "proven.none"),
        "steps": reproduction.steps(t, document, original),
        "provenance": reproduction.provenance(document),
        "conventions": reproduction.conventions(t, document),
        "limits": reproduction.limits(t, document),
        "version": document["reproduce"]["versions"].get("bilens", ""),
    }


def scale_of(painter: Painter) -> dict[str, str]:
    """Return the colour bar and its ends."""
    end = fixed(painter.scale, decimals([painter.scale], 2))
    return {"src": colour_bar(), "low": f"−{end}", "high": f"+{end}", "end": end}


def embedded_json(document: Document) -> Markup:
    """Return the document for a script element: equal under `json.loads`, and it cannot end it."""
    text = json_text(document)  # ASCII, so U+2028 and U+2029 are escaped already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character is left that HTML would read
