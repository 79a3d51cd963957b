"""The document of a layer audit: what is let in, what is refused, and that the page says it all.

Broken once: `require(len(copy["layers"]) > 0)` left out; a model without layers was let in.
"""

from __future__ import annotations

import math
import re
from pathlib import Path
from typing import Any

import pytest

from bilens.base.errors import NonFiniteError, UsageError
from bilens.findings.conditions import RULES
from bilens.findings.records import SCHEMA_VERSION
from bilens.report import layer_audit_document as documents
from bilens.report.difference_document import CONDITIONS, DIFFERENCE
from bilens.report.document import VERDICT_VALUES
from bilens.report.layer_audit_document import FIT, LAYER, OUTPUTS, SHAPE, check_layer_audit
from bilens.report.layer_audit_report import LayerAuditReport
from bilens.report.rules_document import RULE_SCOPES, RULE_VALUES
from bilens.report.shape import Optional
from layer_audit_documents import make_comparison, make_layer_audit, variants

PAGE = Path(__file__).parents[2] / "docs" / "auditing.md"


@pytest.mark.parametrize("name", variants())
def test_good_documents_survive_a_round_trip(name: str, tmp_path: Path) -> None:
    report = LayerAuditReport(variants()[name])
    report.to_json(tmp_path / "a.json")
    assert LayerAuditReport.from_json(tmp_path / "a.json") == report
    for lang in ("en", "ja"):
        assert f'lang="{lang}"' in report.to_html(lang=lang)


def leaves(shape: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of the schema, as a path."""
    if isinstance(shape, Optional):
        shape = shape.shape
    if isinstance(shape, list):
        return leaves(shape[0], place)
    if not isinstance(shape, dict):
        return [place]
    return [place, *(leaf for key, inner in shape.items() for leaf in leaves(inner, (*place, key)))]


def holder(document: dict[str, Any], path: tuple[str, ...]) -> Any:
    """The object that holds the last key of a path; of lists, the first item that has one."""
    found: Any = document
    for key in path[:-1]:
        found = found[key]
        if isinstance(found, list):
            if not found:
                pytest.skip("an empty list here")
            found = next((item for item in found if item.get("outputs", 1)), found[0])
        if found is None:
            pytest.skip("null here")
    return found


PATHS = [path for path in leaves(SHAPE) if path and path[-1] not in ("provenance", "versions")]


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_missing_key_is_named(path: tuple[str, ...]) -> None:
    document = make_comparison()
    del holder(document, path)[path[-1]]
    with pytest.raises(UsageError, match=path[-1]):
        check_layer_audit(document)


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_value_of_another_kind_is_refused(path: tuple[str, ...]) -> None:
    document = make_comparison()
    holder(document, path)[path[-1]] = (1.5,) if path[-1] == "values" else {1.5: "x"}
    with pytest.raises(UsageError):
        check_layer_audit(document)


def test_what_is_no_layer_audit_is_refused() -> None:
    with pytest.raises(UsageError, match="a layer_audit document was expected"):
        check_layer_audit(make_layer_audit() | {"kind": "audit"})
    with pytest.raises(UsageError, match="schema_version 2"):
        check_layer_audit(make_layer_audit() | {"schema_version": 2})
    with pytest.raises(UsageError, match="layers is empty"):
        check_layer_audit(make_layer_audit() | {"layers": []})
    with pytest.raises(NonFiniteError):
        check_layer_audit(make_layer_audit() | {"seed": math.nan})
    document = make_layer_audit()
    del document["verdict"][0]["values"]["threshold"]
    with pytest.raises(UsageError, match="'threshold' is missing"):
        check_layer_audit(document)


def test_the_schema_version_is_that_of_the_records() -> None:
    assert documents.SCHEMA_VERSION == SCHEMA_VERSION


def test_every_rule_has_a_scope_and_can_be_asked_for() -> None:
    assert list(RULE_VALUES) == list(RULE_SCOPES)
    assert {*RULE_VALUES, *VERDICT_VALUES, "r_squared"} == {*RULES}  # the last of a table
    page = PAGE.read_text("utf-8")
    assert not [rule for rule in RULE_VALUES if f"| `{rule}` |" not in page]


def test_the_page_describes_every_key_and_no_other() -> None:
    described: dict[str, set[str]] = {}
    for section in PAGE.read_text("utf-8").split("\n### ")[1:]:
        heading, table = section.split("\n\n")[:2]
        keys = {
            key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])
        }
        for place in heading.split(", "):
            described[place.strip("`")] = keys
    layer = {name: shape.shape for name, shape in LAYER.items() if isinstance(shape, Optional)}
    changed = DIFFERENCE["layers"][0]
    expected = {
        "top level": SHAPE,
        "model": SHAPE["model"],
        "layers[]": LAYER,
        "layers[].fit": FIT,
        "layers[].outputs": OUTPUTS,
        "layers[].outputs.pairs[]": OUTPUTS["pairs"][0],
        **{f"layers[].{name}": layer[name] for name in ("units", "inputs", "stability")},
        "difference": DIFFERENCE,
        "difference.layers[]": changed,
        **{f"difference.layers[].{name}": changed[name].shape for name in ("outputs", "inputs")},
        "conditions[]": CONDITIONS[0],
    }
    assert described == {place: {*shape} for place, shape in expected.items()}


def test_no_text_of_a_model_becomes_markup() -> None:
    document = make_layer_audit("broken")
    bad = "<script>alert(1)</script>"
    for layer in document["layers"]:
        layer["name"] = bad
    document["layers"][1]["broken"] = document["source"]["path"] = bad
    document["verdict"][0]["values"]["layers"] = document["model"]["kind"] = bad
    text = LayerAuditReport(document).to_html()
    assert "<script>alert" not in text
    assert "&lt;script&gt;alert" in text
