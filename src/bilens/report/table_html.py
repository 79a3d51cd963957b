"""The report of a table audit as one HTML page: no script, no network, everything inside."""

from __future__ import annotations

from typing import Any

from bilens.records.base import displayable
from bilens.report.catalogue import Catalogue, load_catalogue
from bilens.report.document import Document
from bilens.report.html import embedded_json, environment
from bilens.report.numbers import whole
from bilens.report.sections import reproduction
from bilens.report.sections.conditions import condition_lines
from bilens.report.sections.table_columns import loudest_lines, output_cards
from bilens.report.sections.table_rows import row_cards
from bilens.report.sections.verdict import (
    ICONS,
    overall_outcome,
    overall_sentence,
    verdict_findings,
)

SECTIONS = ("verdict", "columns", "rows", "reproduce", "scope")
CONVENTIONS = ("unit", "centring", "size", "baseline")
LIMITS = ("meaning", "correlated", "indicator", "outside", "triggers")


def render_table(document: Document, lang: str = "en") -> str:
    """Return the page of a checked document.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t = load_catalogue(lang)
    template = environment().get_template("table.html.j2")
    return template.render(page_values(t, document), document_json=embedded_json(document))


def page_values(t: Catalogue, original: Document) -> dict[str, Any]:
    """Return everything that the template prints."""
    document = displayable(original)
    outcome = overall_outcome(document)
    task = document["model"]["task"]
    unit = "standard" if document["model"]["standardised"] else "raw"
    kept = [key for key in CONVENTIONS if key != "centring" or task == "classification"]
    return {
        "t": t,
        "lang": t.lang,
        "kind": "table",
        "keys": "table.page",
        "footer": "table.page.footer",
        "sections": SECTIONS,
        "title": document["source"]["path"] or document["model"]["kind"],
        "facts": table_facts(t, document),
        "num_classes": len(document["outputs"]),
        "overall": outcome,
        "overall_icon": ICONS[outcome],
        "overall_sentence": overall_sentence(t, document),
        "asked": condition_lines(t, document),
        "findings": verdict_findings(t, document),
        "unit": t(f"table.unit.{unit}"),
        "scale": t(f"table.scale.{task}"),
        "cards": output_cards(t, document),
        "loudest": loudest_lines(t, document),
        "rows": row_cards(t, document),
        "rows_lead": t(f"table.rows.lead_{unit}"),
        "steps": reproduction.steps(t, document, original),
        "provenance": reproduction.provenance(document),
        "conventions": [
            (t(f"table.conventions.{key}.term"), t(f"table.conventions.{key}.text")) for key in kept
        ],
        "limits": [t(f"table.limits.{key}") for key in LIMITS],
        "version": document["reproduce"]["versions"].get("bilens", ""),
    }


def table_facts(t: Catalogue, document: Document) -> list[tuple[str, str]]:
    """Return terms and values, in the order in which they are shown."""
    model = document["model"]
    pairs = [(t("facts.model"), model["kind"])]
    if document["source"]["path"]:
        pairs.append((t("facts.file"), document["source"]["path"]))
    return [
        *pairs,
        (t("table.facts.task"), t(f"table.task.{model['task']}")),
        (t("table.facts.columns"), whole(model["d_input"])),
        (t("table.facts.outputs"), whole(model["d_output"])),
        (t("facts.hidden"), whole(model["d_hidden"])),
        (t("table.facts.rows"), rows_given(t, document)),
    ]


def rows_given(t: Catalogue, document: Document) -> str:
    """Return which rows the model was judged on."""
    data = document["data"]
    if data is None:
        return t("facts.no_data")
    name = data["name"] or t("facts.unnamed_data")
    return t("table.facts.rows_value", name=name, count=whole(data["num_images"]))
