"""The document: what is drawable is let in, everything else is refused with its place.

Damage seen to fail: `check_sizes` not called; bool taken for a whole number.
"""

from __future__ import annotations

import copy
import math
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from bilens.base.errors import NonFiniteError, UsageError
from bilens.findings.records import SCHEMA_VERSION
from bilens.report import document as documents
from bilens.report.document import SHAPE, check_document, displayable, json_text
from report_documents import make_document, variants

PAGE = Path(__file__).parents[2] / "docs" / "report.md"
Damage = Callable[[dict[str, Any]], Any]


def leaves(shape: Any, place: tuple[str, ...] = ()) -> list[tuple[str, ...]]:
    """Every key of the schema, as a path."""
    if isinstance(shape, documents.Optional):
        shape = shape.shape
    if isinstance(shape, list):
        return leaves(shape[0], place)
    if not isinstance(shape, dict) or not shape:
        return [place]
    return [place, *(leaf for key, inner in shape.items() for leaf in leaves(inner, (*place, key)))]


# What is proven has the shape of a certificate, whose test goes through every key of it.
# A difference has that of a layer audit, whose test does the same.
ELSEWHERE = ("guarantees", "difference", "conditions")
OWN = SHAPE | {name: documents.Optional({}) for name in ELSEWHERE}
ADDED = (
    *((name,) for name in (*ELSEWHERE, "overfitting", "triggers")),
    ("model", "input_names"),
)  # may be absent
PATHS = [path for path in leaves(OWN) if path and path not in ADDED]


def inside(document: Any, path: tuple[str, ...]) -> Any:
    """The object that holds the last key of a path; of lists, the first item."""
    for key in path[:-1]:
        document = document[key]
        document = document[0] if isinstance(document, list) else document
    return document


@pytest.mark.parametrize("name", variants())
def test_good_documents_come_back_equal_and_as_a_copy(name: str) -> None:
    document = variants()[name]
    checked = check_document(document)
    assert checked == document
    assert checked["classes"][0] is not document["classes"][0]


def test_a_document_of_a_release_that_proved_nothing_is_read() -> None:
    document = make_document()
    for name in ELSEWHERE:
        del document[name]
    del document["model"]["input_names"]
    checked = check_document(document)
    assert [checked.pop(name) for name in ELSEWHERE] == [None] * 3
    assert checked["model"].pop("input_names") is None
    assert checked == document


def test_what_is_proven_is_checked_too() -> None:
    document = make_document()
    document["guarantees"]["truncation"]["points"][0]["bounds"].pop()
    with pytest.raises(UsageError, match="bounds and classes differ"):
        check_document(document)
    document["guarantees"] = "all"
    with pytest.raises(UsageError, match="guarantees"):
        check_document(document)


def test_a_document_of_a_release_that_looked_for_no_trigger_is_read() -> None:
    document = make_document()
    del document["overfitting"], document["triggers"]
    checked = check_document(document)
    assert (checked["overfitting"], checked["triggers"]) == (None, None)


@pytest.mark.parametrize(("key", "value"), [("row", 4), ("column", 5), ("side", 7), ("target", 3)])
def test_a_square_outside_the_model_is_refused(key: str, value: int) -> None:
    document = make_document()
    document["triggers"]["windows"][1][key] = value
    with pytest.raises(UsageError, match="a window of triggers is not in the model"):
        check_document(document)


@pytest.mark.parametrize("name", ["overfitting", "triggers"])
def test_a_score_needs_its_threshold(name: str) -> None:
    document = make_document()
    document[name]["threshold"] = None
    with pytest.raises(UsageError, match=f"{name} has a score or a threshold"):
        check_document(document)


def test_tuples_become_lists() -> None:
    document = make_document()
    document["model"]["input_shape"] = (6, 6)
    assert check_document(document)["model"]["input_shape"] == [6, 6]


def test_keys_of_a_later_release_are_kept() -> None:
    document = make_document() | {"news": [1]}
    document["classes"][0]["news"] = "x"
    assert check_document(document) == document


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_missing_key_is_named(path: tuple[str, ...]) -> None:
    document = make_document()
    del inside(document, path)[path[-1]]
    with pytest.raises(UsageError, match=path[-1]):
        check_document(document)


@pytest.mark.parametrize("path", PATHS, ids=".".join)
def test_a_value_of_another_kind_is_refused(path: tuple[str, ...]) -> None:
    document = make_document()
    inside(document, path)[path[-1]] = 1.5 if path[-1] in TEXTS else "text"
    with pytest.raises(UsageError):
        check_document(document)


TEXTS = {
    *("kind", "dtype", "precision", "name", "rule", "outcome", "path", "weights_sha256", "source"),
    *("source_kind", "sha256", "command", "hardware", "date", "reason"),
}


@pytest.mark.parametrize("version", [0, 2, 99, True, "1", None, 1.5])
def test_another_schema_version_is_refused_in_one_sentence(version: object) -> None:
    with pytest.raises(UsageError, match=r"^the audit document has schema_version .*\.$"):
        check_document(make_document() | {"schema_version": version})


@pytest.mark.parametrize("document", [{}, {"kind": "explanation"}, [], "audit", None, 3])
def test_another_kind_is_refused(document: Any) -> None:
    with pytest.raises(UsageError, match="an audit document was expected"):
        check_document(document)


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_never_gets_in(value: float) -> None:
    document = make_document()
    document["classes"][0]["effective_rank"] = value
    with pytest.raises(NonFiniteError):
        check_document(document)


SIZES: dict[str, Damage] = {
    "vector": lambda d: d["classes"][0]["positive"][0]["vector"].pop(),
    "contribution": lambda d: d["explanations"][0]["classes"][0]["contributions"][0][
        "vector"
    ].pop(),
    "image": lambda d: d["explanations"][0]["image"].pop(),
    "scores": lambda d: d["explanations"][0]["scores"].pop(),
    "label": lambda d: d["explanations"][0].update(label=3),
    "predicted": lambda d: d["explanations"][0].update(predicted=3),
    "shape": lambda d: d["model"].update(input_shape=[6, 7]),
    "axes": lambda d: d["model"].update(input_shape=[36]),
    "names": lambda d: d["model"]["output_names"].pop(),
    "classes": lambda d: d.update(classes=[]),
    "exactness": lambda d: d.update(exactness=[]),
    "eigenvalues": lambda d: d["classes"][0].update(eigenvalues=[]),
    "order": lambda d: d["classes"].reverse(),
    "verdict": lambda d: d["verdict"][0]["values"].pop("float64"),
    "flag": lambda d: d["classes"][0].update(significant_positive=True),
    "negative": lambda d: d["classes"][0].update(significant_positive=-1),
    "huge": lambda d: d["classes"][0].update(constant=10**400),
}


@pytest.mark.parametrize("name", SIZES)
def test_what_does_not_fit_together_is_refused(name: str) -> None:
    document = make_document()
    SIZES[name](document)
    with pytest.raises(UsageError):
        check_document(document)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(UsageError, match="not JSON"):
        json_text({"a": object()})


def test_json_is_ascii_so_that_no_name_can_break_a_file() -> None:
    assert json_text({"犬": "\ud800\u2028"}).isascii()


@pytest.mark.parametrize(
    "text",
    ["\x00", "a\x1b[31mb", "\x7f", "\x9b", "\ud800", "\u202e", "\u2066", "\u2028", "\ufffe"],
)
def test_texts_that_could_do_harm_are_shown_as_a_mark(text: str) -> None:
    shown = displayable({"k": [text, 1, None, True]})["k"]
    assert "\ufffd" in shown[0]
    assert len(shown[0]) == len(text)
    assert shown[1:] == [1, None, True]
    shown[0].encode("utf-8")


def test_ordinary_texts_are_shown_as_they_are() -> None:
    text = "Ankle boot, 犬, עברית, é, 👟, \u00a0"
    assert displayable(text) == text


def test_the_schema_version_is_the_one_that_audits_write() -> None:
    assert documents.SCHEMA_VERSION == SCHEMA_VERSION


def test_the_report_layer_needs_no_tensor() -> None:
    program = (
        "import sys, bilens.report.audit_report, bilens.report.html, bilens.report.terminal, "
        "bilens.report.plates; print('torch' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert output.strip() == "False"


def objects(shape: Any, place: str = "") -> dict[str, set[str]]:
    """The keys of every object of the schema, by its place as the page writes it."""
    if isinstance(shape, documents.Optional):
        shape = shape.shape
    if isinstance(shape, list):
        return objects(shape[0], f"{place}[]")
    if not isinstance(shape, dict) or not shape:
        return {}
    found = {place or "top level": set(shape)}
    for key, inner in shape.items():
        found |= objects(inner, f"{place}.{key}".lstrip("."))
    return found


def test_the_page_describes_every_key_and_no_other() -> None:
    described: dict[str, set[str]] = {}
    for section in PAGE.read_text("utf-8").split("\n### ")[1:]:
        heading, table = section.split("\n\n")[:2]
        keys = {
            key for row in table.splitlines() for key in re.findall(r"`(\w+)`", row.split("|")[1])
        }
        for place in heading.split(", "):
            described[place.strip("`")] = keys
    assert described == objects(OWN)


def test_checking_changes_nothing() -> None:
    document = make_document()
    before = copy.deepcopy(document)
    check_document(document)
    assert document == before
