"""The charts and rows of layers: what is drawn, what is left out, and what stands out.

Broken once: `layer["outputs"]` not looked at.
"""

from __future__ import annotations

from typing import Any

from bilens.report.catalogue import load_catalogue
from bilens.report.sections.layer_table import layer_charts, layer_rows
from layer_audit_documents import cautious, make_layer_audit

T = load_catalogue("en")


def drawings(document: dict[str, Any]) -> list[str]:
    return [str(drawing) for _, drawing in layer_charts(T, document)]


def test_a_gated_model_has_three_charts_and_an_exact_one_two() -> None:
    assert len(drawings(make_layer_audit())) == 3
    assert len(drawings(make_layer_audit("exact"))) == 2


def test_a_chart_of_which_nothing_is_known_is_left_out() -> None:
    document = make_layer_audit()
    for layer in document["layers"]:
        layer["outputs"] = None
    assert len(drawings(document)) == 2


def test_a_layer_below_the_threshold_is_marked_and_has_dashes() -> None:
    document = cautious()
    assert 'class="neg"' in drawings(document)[0]
    first = layer_rows(T, document)[0]
    assert first.refused
    assert (first.rank, first.chance, first.stable) == ("—", "—", "—")
    assert first.r2.startswith("0.500 ± ")


def test_a_broken_layer_says_why() -> None:
    rows = layer_rows(T, make_layer_audit("broken"))
    assert [row.broken is not None for row in rows] == [False, True, False, False, False]
