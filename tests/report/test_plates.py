"""The plates of eigenvectors and of attributions: they stand alone, on one colour scale."""

import re
from typing import Any
from xml.etree import ElementTree

import pytest

import tiny
from bilens.api.classifier import explain_predictions
from bilens.records.base import read_document, to_json
from bilens.records.class_readings import Explanations
from bilens.report.plates import MAX_CLASSES, attribution_plate, eigenvector_plate
from bilens.report.reports import AuditReport
from bilens.report.text import LANGUAGES
from report_documents import make_document, variants

SVG = "{http://www.w3.org/2000/svg}"


def parse(svg: str) -> ElementTree.Element:
    return ElementTree.fromstring(svg)  # noqa: S314 - our own text


def texts(root: ElementTree.Element) -> list[str]:
    return ["".join(node.itertext()) for node in root.iter(f"{SVG}text")]


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("name", variants())
def test_it_stands_alone(name: str, lang: str) -> None:
    svg = eigenvector_plate(AuditReport(variants()[name]).record, lang)
    root = parse(svg)
    assert svg.count("http") == 1, "the name of the format, and no address"
    assert {node.tag.removeprefix(SVG) for node in root.iter()} == {
        *("svg", "title", "desc", "style", "rect", "text", "g", "image")
    }
    images = list(root.iter(f"{SVG}image"))
    assert all(node.get("href", "").startswith("data:image/png;base64,") for node in images)


def test_two_of_each_sign_for_each_class_and_a_colour_bar() -> None:
    document = AuditReport(make_document()).record
    root = parse(eigenvector_plate(document))
    assert len(list(root.iter(f"{SVG}image"))) == 3 * 4 + 1
    values = [text for text in texts(root) if text.startswith("λ")]
    expected = [
        pair.eigenvalue
        for reading in document.classes.readings
        for pair in (*reading.positive[:2], *reading.negative[:2])
    ]
    assert [float(text[4:].replace("−", "-")) for text in values] == pytest.approx(
        expected, abs=0.006
    )


@pytest.mark.parametrize("names", [["0", "1", "2"], ["Ankle boot", "犬" * 30, "x" * 300]])
def test_nothing_overlaps_or_leaves_the_drawing(names: list[str]) -> None:
    root = parse(eigenvector_plate(AuditReport(make_document(names=names)).record))
    width, height = float(root.get("width", 0)), float(root.get("height", 0))
    boxes = [
        tuple(float(node.get(key, 0)) for key in ("x", "y", "width", "height"))
        for node in root.iter(f"{SVG}image")
    ]
    assert all(x >= 0 and y >= 0 and x + w <= width and y + h <= height for x, y, w, h in boxes)
    for i, (x, y, w, h) in enumerate(boxes):
        for x2, y2, w2, h2 in boxes[:i]:
            assert x >= x2 + w2 or x2 >= x + w or y >= y2 + h2 or y2 >= y + h


def test_names_are_escaped() -> None:
    svg = eigenvector_plate(
        AuditReport(make_document(names=["<a>&", "</svg>", "\x00\u202e"])).record
    )
    assert {"<a>&", "</svg>", "\ufffd\ufffd"} <= set(texts(parse(svg)))


def test_of_many_classes_the_first_are_drawn_and_that_is_said() -> None:
    svg = eigenvector_plate(AuditReport(make_document(classes=30)).record)
    assert f"The first {MAX_CLASSES} of 30 classes." in svg
    assert svg.count("<image") == 4 * MAX_CLASSES + 1


def test_it_is_light_enough_for_a_readme() -> None:
    document = AuditReport(make_document(classes=20, shape=(28, 28))).record
    assert len(eigenvector_plate(document).encode()) < 300_000


def explained() -> dict[str, Any]:
    model = tiny.loaded(tiny.trained())
    return to_json(explain_predictions(model, tiny.images(), [0, 5], command="here"))


def drawn(document: dict[str, Any], lang: str = "en") -> str:
    return attribution_plate(read_document(Explanations, document), lang)


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_drawing_has_three_pictures_an_input_and_reaches_nothing_outside(lang: str) -> None:
    text = drawn(explained(), lang)
    root = parse(text)
    images = [node.get("href") or "" for node in root.iter(f"{SVG}image")]
    assert len(images) == 2 * 3 + 1
    assert all(uri.startswith("data:image/png;base64,") for uri in images)
    assert root.find(f"{SVG}title") is not None
    assert root.find(f"{SVG}desc") is not None
    assert "<script" not in text


def test_all_pictures_share_one_scale() -> None:
    found = explained()
    for item in found["explanations"]:
        for part in item["attributions"]:
            part["values"] = [0.0] * tiny.PIXELS
    first, second = (item["attributions"] for item in found["explanations"])
    first[0]["values"][3] = first[1]["values"][3] = 2.0
    second[0]["values"][3] = 1.0  # half the colour
    uris = re.findall(r'href="(data:[^"]+)"', drawn(found))
    assert uris[1] == uris[2]
    assert uris[4] != uris[1]
    assert "≤" not in drawn(found)


def test_names_of_an_attribution_stay_text() -> None:
    found = explained()
    found["model"]["output_names"] = ["</text><script>alert(1)</script>", "a\u202eb", "c"]
    text = drawn(found)
    assert "<script" not in text
    assert "\u202e" not in text


def test_nothing_to_draw_is_an_empty_drawing() -> None:
    found = explained()
    found["explanations"] = []
    assert drawn(found).startswith("<svg")
    row = explained()
    row["model"]["input_shape"] = [1, tiny.PIXELS]
    assert drawn(row).count("<image") == 7
