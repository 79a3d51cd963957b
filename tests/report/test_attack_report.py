"""The report of an attack: a checked document, and a page that shows all of it and nothing else."""

import json
import math
import re
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
from attack_documents import make_attack, variants
from bilens.base.errors import CheckpointError, NonFiniteError, UsageError
from report_documents import make_document


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("name", variants())
def test_the_page_shows_curves_numbers_perturbations_and_the_proof(name: str, lang: str) -> None:
    document = variants()[name]
    page = bl.AttackReport(document).to_html(lang=lang)
    assert f'<html lang="{lang}">' in page
    for section in ("proof", "curves", "numbers", "perturbations", "reproduce", "scope"):
        assert f'<section id="{section}"' in page
        assert f'href="#{section}"' in page
    assert page.count('class="chart wide effect"') == 4 * 3  # all or edge, free or clipped
    shown = min(len(document["objectives"]), 20)
    kinds = len(document["curves"])
    assert page.count('<img class="vector"') == shown * kinds
    assert page.count("<title>") == 1 + 12
    assert not re.findall(r"<img(?![^>]*alt=)", page)
    assert not re.search(r"(src|href)=\"(?!data:|#)", page)  # nothing from outside
    assert ("callout wrong" in page) == (name == "failed")


def test_every_curve_has_a_colour() -> None:
    page = bl.AttackReport(make_attack()).to_html()
    style, _, body = page.partition("</style>")
    kinds = set(re.findall(r'class="(?:dot|kind) (kind-[\w-]+)"', body))
    assert len(kinds) == 6
    assert kinds == set(re.findall(r"\.(kind-[\w-]+)", style))


def test_numbers_of_the_page_are_those_of_the_document() -> None:
    document = make_attack()
    page = bl.AttackReport(document).to_html()
    place = document["epsilons"].index(4.0)
    assert "Numbers at ε = 4<" in page
    for curve in document["curves"]:
        assert f"{100 * curve['effect']['accuracy'][place]:.1f}%" in page
        assert f"{curve['effect']['margin'][place]:.2f}".replace("-", "−") in page
    assert "no δ with ‖δ‖₂ ≤ ε lowers the mean margin more" in page
    assert "Not proven: the error rate." in page


def test_names_never_become_markup() -> None:
    document = make_attack()
    document["model"]["output_names"][0] = "<script>alert(1)</script>"
    document["source"]["path"] = "</title><script>alert(2)</script>"
    page = bl.AttackReport(document).to_html()
    assert "<script>alert" not in page
    assert "&lt;script&gt;alert(1)" in page


def test_a_report_is_saved_and_read_again(tmp_path: Path) -> None:
    report = bl.AttackReport(make_attack())
    report.to_json(tmp_path / "attack.json")
    assert bl.AttackReport.from_json(tmp_path / "attack.json").to_dict() == report.to_dict()
    page = report.to_html(tmp_path / "attack.html")
    match = re.search(r'id="bilens-attack">(.*?)</script>', page)
    assert match is not None
    assert json.loads(match[1]) == report.to_dict()
    assert report.holds
    assert not bl.AttackReport(variants()["failed"]).holds
    bl.AttackReport(make_attack()).to_json(tmp_path / "audit.json")
    (tmp_path / "audit.json").write_text(json.dumps(make_document()))
    with pytest.raises(CheckpointError, match="an attack document was expected"):
        bl.AttackReport.from_json(tmp_path / "audit.json")


def changed(place: str, value: Any) -> dict[str, Any]:
    document = make_attack()
    *parents, last = [int(part) if part.isdigit() else part for part in place.split(".")]
    item: Any = document
    for part in parents:
        item = item[part]
    item[last] = value
    return document


@pytest.mark.parametrize(
    ("place", "value", "words"),
    [
        ("kind", "audit", "an attack document was expected"),
        ("schema_version", 2, "this release reads 1"),
        ("epsilons", [], "nothing to draw"),
        ("objectives", [], "objectives is empty"),
        ("curves.0.change", [0.0], "'optimal' does not have one number for each epsilon"),
        ("objectives.0.perturbations.1.clipped.margin", [0.0], "one number for each epsilon"),
        ("objectives.0.perturbations.0.vector", [1.0], "a perturbation does not have 36 values"),
        ("objectives.1.target", 3, "names a class that is not there"),
        ("objectives.1.source", 7, "names a class that is not there"),
        ("model.input_shape", [6, 7], "input_shape"),
        ("holds", 1, "true or false was expected"),
    ],
)
def test_documents_that_do_not_fit_are_refused(place: str, value: Any, words: str) -> None:
    with pytest.raises(UsageError, match=words):
        bl.AttackReport(changed(place, value))


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NonFiniteError):
        bl.AttackReport(changed("curves.0.gap.1", math.nan))
