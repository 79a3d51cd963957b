"""The page of a certificate: what is shown is never stronger than what is proven."""

import html
import re
from typing import Any

import pytest
import torch

import bilens as bl
from bilens.base.errors import NonFiniteError, UsageError
from bilens.records.guarantees import RoundedClass, RoundingStability
from bilens.report.reports import CertificateReport
from bilens.report.sections.certificate_page import rounding_numbers, statements
from bilens.report.text import LANGUAGES, floored, load_catalogue, percent, raised, up
from certificate_documents import make_certificate, variants
from report_documents import page_of

DOCUMENTS = {name: CertificateReport(document).to_dict() for name, document in variants().items()}


def text_of(page: str) -> str:
    return " ".join(html.unescape(re.sub(r"<script.*?</script>|<[^>]+>", " ", page)).split())


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("name", DOCUMENTS)
def test_every_statement_has_a_number_its_assumptions_and_its_scope(name: str, lang: str) -> None:
    record = CertificateReport(DOCUMENTS[name]).record
    for item in statements(load_catalogue(lang), record.model, record):
        assert re.search(r"\d", item.claim), item
        assert item.assumes
        assert item.scope


def test_names_from_a_file_do_not_become_markup() -> None:
    document = make_certificate()
    document["model"]["output_names"] = ["<script>alert(1)</script>", "a\u202eb", "</svg>"]
    document["source"]["path"] = '"><img src=x onerror=alert(1)>'
    page = page_of(document)
    assert page.count("<script") == 1
    assert "<img src=x" not in page
    assert "\u202e" not in page


@pytest.mark.parametrize("significant", [1, 2, 3, 6])
def test_what_is_shown_is_never_stronger_than_what_is_proven(significant: int) -> None:
    generator = torch.Generator().manual_seed(0)
    values = torch.randn(500, generator=generator, dtype=torch.float64).exp().pow(4).tolist()
    for value in [*values, 0.0, 1.0, 0.999999999, 9.9951, 1e-12]:
        for shown, sign in ((raised(value, significant), 1), (floored(value, significant), -1)):
            number = float(
                shown.replace(",", "")
                .replace("\u00a0×\u00a010", "e")
                .translate(str.maketrans("⁻⁰¹²³⁴⁵⁶⁷⁸⁹", "-0123456789"))
            )
            assert sign * (number - value) >= -1e-12 * value, (value, shown)
            assert abs(number - value) <= 10 ** (1 - significant) * value * 1.000001
    assert up(-2.2649, 3) == -2.26
    assert (percent(0.98999, toward=-1), percent(0.99, toward=-1)) == ("98.9%", "99.0%")


def test_the_worst_class_speaks_for_all() -> None:
    one = {
        "change": 1.0,
        "norm": "spectral",
        "movement": 2.0,
        "largest": 4.0,
        "sines": (0.4999, 1.0),
    }
    other = {**one, "movement": 1.0, "largest": 0.0, "sines": (0.1, 0.2)}
    classes = (RoundedClass(**one), RoundedClass(**other))
    numbers = rounding_numbers(RoundingStability("int8", None, classes))
    shown = {"movement": "2.0", "share": "50.00%", "count": "3", "total": "4", "angle": "30"}
    assert numbers == shown


def test_the_claim_of_the_page_is_that_of_the_document() -> None:
    document = make_certificate()
    page = text_of(page_of(document))
    point = next(
        p for p in document["truncation"]["points"] if p["k"] == document["truncation"]["chosen"]
    )
    assert f"no score changes by more than {raised(max(point['bounds']))}" in page
    assert f"a radius of {floored(document['l2']['median'])} or more" in page


def broken(**changes: Any) -> dict[str, Any]:
    return {**make_certificate(), **changes}


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "an audit": (broken(kind="audit"), "a certificate document was expected"),
    "a later schema": (broken(schema_version=2), "schema_version 2"),
    "a box of nothing": (broken(box=None), "influence does not have one entry a class"),
    "no points": (
        broken(truncation={**make_certificate()["truncation"], "points": []}),
        "truncation has no points",
    ),
    "no influence": (
        broken(input_use={**make_certificate()["input_use"], "influence": []}),
        "influence does not have one entry a class",
    ),
    "fewer inputs": (
        broken(l2={**make_certificate()["l2"], "inputs": []}),
        "l2 has another number of inputs",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_document_that_cannot_be_drawn_is_refused(name: str) -> None:
    document, words = BAD[name]
    with pytest.raises(UsageError, match=words):
        bl.CertificateReport(document).to_dict()
    if name != "an audit":
        with pytest.raises(UsageError, match="an audit document was expected"):
            bl.AuditReport(document)


def test_nan_is_refused() -> None:
    with pytest.raises(NonFiniteError):
        bl.CertificateReport(broken(box={"low": float("nan"), "high": 1.0}))
