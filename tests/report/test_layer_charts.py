"""The charts and rows of layers: what is drawn, what is left out, and what stands out."""

import re
from typing import Any

from layer_audit_documents import cautious, make_layer_audit
from report_documents import page_of


def part(document: dict[str, Any], name: str) -> str:
    """A section of the page."""
    return page_of(document).split(f'<section id="{name}"')[1].split("</section>")[0]


def drawings(document: dict[str, Any]) -> list[str]:
    return re.findall(r"<svg.*?</svg>", part(document, "charts"))


def rows(document: dict[str, Any]) -> list[str]:
    return re.findall(r"<tr.*?</tr>", part(document, "table"))[1:]


def test_a_gated_model_has_three_charts_and_an_exact_one_two() -> None:
    assert len(drawings(make_layer_audit())) == 3
    assert len(drawings(make_layer_audit("exact"))) == 2


def test_a_chart_of_which_nothing_is_known_is_left_out() -> None:
    document = make_layer_audit()
    for layer in document["layers"]["readings"]:
        layer["outputs"] = None
    assert len(drawings(document)) == 2
    for layer in document["layers"]["readings"]:
        layer["weight_norm"] = None
    assert len(drawings(document)) == 1


def test_a_layer_below_the_threshold_is_marked_and_has_dashes() -> None:
    document = cautious()
    assert 'class="neg"' in drawings(document)[0]
    first = rows(document)[0]
    assert first.startswith('<tr class="refused">')
    cells = re.findall(r"<td[^>]*>(.*?)</td>", first)
    assert cells[0].startswith("0.500 ± ")
    assert (cells[3], cells[4], cells[9]) == ("<strong>—</strong>", "—", "—")


def test_a_layer_without_a_number_is_in_no_range() -> None:
    page = part(make_layer_audit("broken"), "charts")
    assert "The sizes run from 0.2" in page
    assert "The effective ranks run from 4.6" in page


def test_a_broken_layer_says_why() -> None:
    broken = [
        ">cannot" in row or 'class="broken"' in row for row in rows(make_layer_audit("broken"))
    ]
    assert broken == [False, True, False, False, False]
