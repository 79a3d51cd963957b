"""The report of an attack: a checked document, and a page that shows all of it and nothing else."""

import math
import re
from typing import Any

import pytest

import bilens as bl
from attack_documents import make_attack, variants
from bilens.base.errors import NonFiniteError, UsageError
from report_documents import changed


@pytest.mark.parametrize("name", variants())
def test_the_page_shows_curves_perturbations_and_the_proof(name: str) -> None:
    document = variants()[name]
    page = bl.AttackReport(document).to_html()
    groups = 2 if name == "free" else 4  # all or edge; free, and clipped where a box is known
    assert page.count('class="chart wide effect"') == groups * 3
    shown = min(len(document["objectives"]), 20)
    assert page.count('<img class="vector"') == shown * len(document["curves"])
    assert page.count("<title>") == 1 + groups * 3
    assert ("callout wrong" in page) == (name == "failed")
    assert bl.AttackReport(document).holds == (name != "failed")


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
        bl.AttackReport(changed(make_attack(), place, value))


def test_numbers_that_are_not_finite_are_refused() -> None:
    with pytest.raises(NonFiniteError):
        bl.AttackReport(changed(make_attack(), "curves.0.gap.1", math.nan))
