"""The report as one HTML page: no script, no network, everything inside."""

from __future__ import annotations

from functools import cache
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from bilens.report.catalogue import load_catalogue
from bilens.report.document import Document, json_text


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
    return template.render(t=t, lang=lang, document_json=embedded_json(document), d=document)


def embedded_json(document: Document) -> Markup:
    """Return the document for a script element: equal under `json.loads`, and it cannot end it."""
    text = json_text(document)  # ASCII, so U+2028 and U+2029 are escaped already
    for character in "<>&":
        text = text.replace(character, f"\\u{ord(character):04x}")
    return Markup(text)  # noqa: S704 - no character is left that HTML would read


Context = dict[str, Any]
