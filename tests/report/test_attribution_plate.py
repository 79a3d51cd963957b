"""The attribution plate: one scale, a drawing that stands alone, names that stay text.

Broken once: each tile drawn on a scale of its own; equal values had different colours.
"""

from __future__ import annotations

import re
from typing import Any
from xml.etree import ElementTree

import pytest

import tiny
from bilens.api.explain import explain_image
from bilens.report.attribution_plate import attribution_plate
from bilens.report.catalogue import LANGUAGES

DATA = tiny.images()


def document() -> dict[str, Any]:
    return explain_image(tiny.loaded(tiny.trained()), DATA, [0, 5], command="here")


@pytest.mark.parametrize("lang", LANGUAGES)
def test_a_drawing_has_three_pictures_an_input_and_reaches_nothing_outside(lang: str) -> None:
    text = attribution_plate(document(), lang)
    root = ElementTree.fromstring(text)  # noqa: S314 - ours
    space = "{http://www.w3.org/2000/svg}"
    images = [node.get("href") or "" for node in root.iter(f"{space}image")]
    assert len(images) == 2 * 3 + 1
    assert all(uri.startswith("data:image/png;base64,") for uri in images)
    assert root.find(f"{space}title") is not None
    assert root.find(f"{space}desc") is not None
    assert "<script" not in text


def test_all_pictures_share_one_scale() -> None:
    found = document()
    for item in found["explanations"]:
        for part in item["attributions"]:
            part["values"] = [0.0] * tiny.PIXELS
    first, second = (item["attributions"] for item in found["explanations"])
    first[0]["values"][3] = first[1]["values"][3] = 2.0
    second[0]["values"][3] = 1.0  # half the colour
    uris = re.findall(r'href="(data:[^"]+)"', attribution_plate(found))
    assert uris[1] == uris[2]
    assert uris[4] != uris[1]
    assert "≤" not in attribution_plate(found)


def test_names_stay_text() -> None:
    found = document()
    found["model"]["output_names"] = ["</text><script>alert(1)</script>", "a\u202eb", "c"]
    text = attribution_plate(found)
    assert "<script" not in text
    assert "\u202e" not in text


def test_nothing_to_draw_is_an_empty_drawing() -> None:
    found = document()
    found["explanations"] = []
    assert attribution_plate(found).startswith("<svg")
    row = document()
    row["model"]["input_shape"] = [1, tiny.PIXELS]
    assert attribution_plate(row).count("<image") == 7
