"""The report of a trace as one HTML page: no script, no network, everything inside."""

from __future__ import annotations

from typing import Any

from bilens.records.base import displayable
from bilens.report.catalogue import load_catalogue
from bilens.report.document import Document
from bilens.report.html import embedded_json, environment
from bilens.report.sections import reproduction, trace_layer
from bilens.report.sections.trace_causal import contrast_section
from bilens.report.sections.trace_circuits import CircuitPainter
from bilens.report.sections.trace_features import feature_card, input_anchor
from bilens.report.sections.trace_readings import reading_cards
from bilens.report.token_text import marked

WITH_LATENTS = (
    "layer",
    "ranking",
    "agreement",
    "contrasts",
    "circuits",
    "features",
    "reproduce",
    "scope",
)
WEIGHTS_ONLY = ("layer", "readings", "reproduce", "scope")
LIMITS = ("exact", "norm", "direct", "selection", "meaning")


def render_trace(original: Document, lang: str = "en") -> str:
    """Return the page of a checked document of a trace.

    Raises:
        UsageError: If there is no catalogue of that language.
    """
    t, document = load_catalogue(lang), displayable(marked(original))
    painter = CircuitPainter.of(t, document)
    with_latents = bool(document["circuits"])
    limits = [t(f"trace.limits.{key}") for key in LIMITS]
    if with_latents:
        limits[1:1] = [t(f"trace.limits.{key}") for key in ("sae", "measured", "causal")]
    values: dict[str, Any] = {
        "sections": WITH_LATENTS if with_latents else WEIGHTS_ONLY,
        "saes": document["saes"],
        "exactness": trace_layer.exactness(t, document),
        "sae_rows": trace_layer.sae_rows(t, document) if with_latents else [],
        "ranking": trace_layer.ranking_rows(t, document),
        "num_outputs": document["num_outputs"],
        "clusters": trace_layer.cluster_lines(t, document),
        "cluster_threshold": f"{document['cluster_threshold']:g}",
        "agreement": trace_layer.agreement(t, document) if with_latents else None,
        "contrasts": contrast_section(t, document),
        "circuits": [painter.card(circuit) for circuit in document["circuits"]],
        "features": [
            feature_card(t, item, input_anchor(item["latent"]))
            for item in document["input_latents"]
        ],
        "readings": reading_cards(t, document),
        "spaced": document["tokens_carry_spaces"],
    }
    template = environment().get_template("trace.html.j2")
    return template.render(
        t=t,
        lang=t.lang,
        kind="trace",
        keys="trace.page",
        footer="trace.page.footer",
        num_classes=document["num_outputs"],
        title=f"{document['layer']['name']} · {document['source']['path']}",
        facts=trace_layer.trace_facts(t, document),
        steps=reproduction.steps(t, document, original),
        provenance=reproduction.provenance(document),
        conventions=[],
        limits=limits,
        version=document["reproduce"]["versions"].get("bilens", ""),
        document_json=embedded_json(original),
        **values,
    )
