"""Documents come back as they were, and their schemas say what every field means."""

import copy
import json
import math
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import chain
from pathlib import Path
from typing import Any

import msgspec
import pytest

import attack_documents
import bilens.records as records
import bilens_explorer.records as explorer_records
import certificate_documents
import layer_audit_documents
import report_documents
import table_documents
import trace_documents
from bilens.base.errors import NonFiniteError, UsageError
from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import Document, displayable, json_text, kind_of, read_document, to_json
from bilens.records.class_readings import Explanation
from bilens.records.column_readings import ColumnChanges
from bilens.records.common import Source
from bilens.records.guarantees import Certificate
from bilens.records.mlp_trace import Trace
from bilens.records.view import records_in, views
from bilens.report.reports import AuditReport
from bilens_explorer.app import ENDPOINTS
from bilens_explorer.endpoint import openapi
from bilens_explorer.records.layer_spectra import LayerRow
from report_documents import make_document
from tools.schema import DOCUMENTS, schema, tables

Values = dict[str, Any]
Damage = Callable[[Values], Any]
SAMPLES: dict[str, tuple[type[Document], Callable[[], Values]]] = {
    "classes": (Audit, report_documents.make_document),
    "layers": (Audit, layer_audit_documents.make_comparison),
    "columns": (Audit, table_documents.make_table),
    "certificate": (Certificate, certificate_documents.make_certificate),
    "attack": (Attack, attack_documents.make_attack),
    "trace": (Trace, trace_documents.make_trace),
}
VARIANTS = [
    (kind, module, name)
    for kind, module in (
        (Audit, report_documents),
        (Audit, layer_audit_documents),
        (Audit, table_documents),
        (Trace, trace_documents),
    )
    for name in module.variants()
]


def objects(value: Any, found: dict[tuple[str, ...], Values], place: tuple[str, ...] = ()) -> None:
    """Collect the first object at each place of a document, items of a list being one place."""
    if isinstance(value, dict):
        found.setdefault(place, value)
        for key, inner in value.items():
            objects(inner, found, (*place, key))
    elif isinstance(value, list):
        for item in value:
            objects(item, found, (*place, "*"))


FREE = ("provenance", "versions", "statuses", "values")  # whatever their keys


def keys_of(document: Values) -> Iterator[tuple[tuple[str, ...], Values, str]]:
    """Every key of a document, with its place and the object that it is in."""
    found: dict[tuple[str, ...], Values] = {}
    objects(document, found)
    for place, holder in found.items():
        if not {*place} & {*FREE}:
            yield from ((place, holder, key) for key in list(holder))


@contextmanager
def restored(holder: Values) -> Iterator[None]:
    before = dict(holder)
    yield
    holder.clear()
    holder.update(before)


@pytest.mark.parametrize(("kind", "module", "name"), VARIANTS)
def test_good_documents_come_back_equal_and_as_a_copy(
    kind: type[Document], module: Any, name: str
) -> None:
    document = module.variants()[name]
    record = read_document(kind, document)
    assert to_json(record) == document
    assert list(to_json(record)) == [field.name for field in msgspec.structs.fields(kind)]
    assert read_document(kind, to_json(record)) == record


@pytest.mark.parametrize(("kind", "make"), SAMPLES.values(), ids=SAMPLES)
def test_a_missing_key_is_named_or_has_a_default(
    kind: type[Document], make: Callable[[], Values]
) -> None:
    document = copy.deepcopy(make())
    for place, holder, key in keys_of(document):
        with restored(holder):
            value = holder.pop(key)
            try:
                record = read_document(kind, document)
            except UsageError as error:
                assert key in str(error) or "fit" in str(error), place  # noqa: PT017
            else:
                assert value != json.loads(json_text(record)) or value is None, (place, key)


@pytest.mark.parametrize(("kind", "make"), SAMPLES.values(), ids=SAMPLES)
def test_a_value_of_another_kind_is_refused(
    kind: type[Document], make: Callable[[], Values]
) -> None:
    document = copy.deepcopy(make())
    for _place, holder, key in keys_of(document):
        with restored(holder):
            holder[key] = [{"a": {}}]
            with pytest.raises(UsageError):
                read_document(kind, document)


@pytest.mark.parametrize(("kind", "make"), SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("version", [0, 99, True, "1", None, 1.5])
def test_another_schema_version_is_refused_in_one_sentence(
    kind: type[Document], make: Callable[[], Values], version: object
) -> None:
    with pytest.raises(UsageError, match=r"^the \w+ document has schema_version .*\.$"):
        read_document(kind, make() | {"schema_version": version})


def test_an_audit_of_an_earlier_release_is_refused_in_one_sentence() -> None:
    with pytest.raises(UsageError, match=r"has schema_version 1; this release reads 2: use"):
        AuditReport(make_document() | {"schema_version": 1})
    for kind in ("layer_audit", "table"):
        with pytest.raises(UsageError, match=rf"kind '{kind}' is of an earlier release: .* again"):
            AuditReport({"kind": kind, "schema_version": 1})


@pytest.mark.parametrize("document", [{}, {"kind": "explanation"}, [], "audit", None, 3])
def test_another_kind_is_refused(document: Any) -> None:
    with pytest.raises(UsageError, match="an audit document was expected"):
        read_document(Audit, document)
    with pytest.raises(UsageError, match="a trace document was expected"):
        read_document(Trace, document)


@pytest.mark.parametrize(("kind", "make"), SAMPLES.values(), ids=SAMPLES)
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf])
def test_nan_never_gets_in(kind: type[Document], make: Callable[[], Values], value: float) -> None:
    with pytest.raises(NonFiniteError):
        read_document(kind, make() | {"seed": value})


def test_the_place_of_a_fault_is_named_with_what_was_expected() -> None:
    document = make_document()
    document["classes"]["readings"][1]["index"] = "one"
    words = r"^audit document, classes\.readings\[1\]\.index: an integer was expected, got 'one'\.$"
    with pytest.raises(UsageError, match=words):
        read_document(Audit, document)
    document["classes"]["readings"][1]["index"] = -1
    words = r"classes\.readings\[1\]\.index: an integer of at least 0 was expected, got -1\."
    with pytest.raises(UsageError, match=words):
        read_document(Audit, document)
    del document["classes"]["readings"][1]["index"]
    words = r"^audit document, classes\.readings\[1\]: 'index' is missing\.$"
    with pytest.raises(UsageError, match=words):
        read_document(Audit, document)


def test_a_document_from_before_a_key_was_there_is_read() -> None:
    document = make_document()
    later = ("guarantees", "difference", "conditions", "overfitting", "triggers", "decision")
    for name in later:
        del document[name]
    del document["model"]["input_names"]
    record = read_document(Audit, document)
    assert [getattr(record, name) for name in later] == [None] * 6
    assert record.model.input_names is None


def test_keys_of_a_later_release_are_passed_over() -> None:
    document = make_document()
    later = make_document() | {"news": [1]}
    later["classes"]["readings"][0]["news"] = "x"
    assert read_document(Audit, later) == read_document(Audit, document)


SIZES: dict[str, Damage] = {
    "vector": lambda d: d["classes"]["readings"][0]["positive"][0]["vector"].pop(),
    "contribution": lambda d: d["classes"]["explanations"][0]["classes"][0]["contributions"][0][
        "vector"
    ].pop(),
    "image": lambda d: d["classes"]["explanations"][0]["image"].pop(),
    "scores": lambda d: d["classes"]["explanations"][0]["scores"].pop(),
    "label": lambda d: d["classes"]["explanations"][0].update(label=3),
    "predicted": lambda d: d["classes"]["explanations"][0].update(predicted=3),
    "shape": lambda d: d["model"].update(input_shape=[6, 7]),
    "axes": lambda d: d["model"].update(input_shape=[36]),
    "names": lambda d: d["model"]["output_names"].pop(),
    "classes": lambda d: d["classes"].update(readings=[]),
    "exactness": lambda d: d.update(exactness=[]),
    "eigenvalues": lambda d: d["classes"]["readings"][0].update(eigenvalues=[]),
    "order": lambda d: d["classes"]["readings"].reverse(),
    "verdict": lambda d: d["verdict"][0]["values"].pop("error"),
    "flag": lambda d: d["classes"]["readings"][0].update(significant_positive=True),
    "negative": lambda d: d["classes"]["readings"][0].update(significant_positive=-1),
    "huge": lambda d: d["classes"]["readings"][0].update(constant=10**400),
    "bounds": lambda d: d["guarantees"]["truncation"]["points"][0]["bounds"].pop(),
    "guarantees": lambda d: d.update(guarantees="all"),
    "row": lambda d: d["triggers"]["suspects"][0].update(box=[4, 2, 3, 3]),
    "column": lambda d: d["triggers"]["suspects"][0].update(box=[1, 5, 3, 3]),
    "place": lambda d: d["triggers"]["suspects"][0].update(box=[1, 2, 3]),
    "pattern": lambda d: d["triggers"]["suspects"][1]["pattern"].pop(),
    "target": lambda d: d["triggers"]["suspects"][1].update(target=3),
    "goal": lambda d: d["triggers"]["suspects"][0]["goals"].append(3),
    "suspects": lambda d: d["triggers"].update(suspects=[]),
    "p-value": lambda d: d["triggers"].update(p_value=None),
    "overfitting": lambda d: d["overfitting"].update(threshold=None),
    "triggers": lambda d: d["triggers"].update(threshold=None),
}


@pytest.mark.parametrize("name", SIZES)
def test_what_does_not_fit_together_is_refused(name: str) -> None:
    document = make_document()
    SIZES[name](document)
    with pytest.raises(UsageError):
        AuditReport(document)


def test_a_layer_audit_without_layers_or_a_number_of_a_rule_is_refused() -> None:
    document = layer_audit_documents.make_layer_audit()
    with pytest.raises(UsageError, match="layers is empty"):
        AuditReport(document | {"layers": {"readings": []}, "inventory": None})
    del document["verdict"][0]["values"]["threshold"]
    with pytest.raises(UsageError, match="'threshold' is missing"):
        AuditReport(document)


def test_what_is_not_json_is_refused() -> None:
    with pytest.raises(UsageError, match="not JSON"):
        json_text({"a": object()})


def test_json_is_ascii_so_that_no_name_can_break_a_file() -> None:
    assert json_text({"犬": "\ud800\u2028"}).isascii()
    source = Source("\ud800", "", {"\u202e": "\x00"})
    assert json.loads(json_text(source))["path"] == "\ud800"


@pytest.mark.parametrize(
    "text", ["\x00", "a\x1b[31mb", "\x7f", "\x9b", "\ud800", "\u202e", "\u2066", "\u2028", "\ufffe"]
)
def test_texts_that_could_do_harm_are_shown_as_a_mark(text: str) -> None:
    shown = displayable({"k": [text, 1, None, True]})["k"]
    assert "\ufffd" in shown[0]
    assert len(shown[0]) == len(text)
    assert shown[1:] == [1, None, True]
    shown[0].encode("utf-8")
    record = read_document(Audit, make_document(names=[text, "b", "c"]))
    assert displayable(record).model.output_names == (shown[0], "b", "c")
    shown_classes = displayable(record).classes
    assert record.classes is not None
    assert shown_classes is not None
    assert shown_classes.readings[0].eigenvalues == record.classes.readings[0].eigenvalues
    assert displayable(Source(text, "", {text: text})) == Source(shown[0], "", {shown[0]: shown[0]})


def test_ordinary_texts_are_shown_as_they_are() -> None:
    text = "Ankle boot, 犬, עברית, é, 👟, \u00a0"
    assert displayable(text) == text
    record = read_document(Audit, make_document())
    assert displayable(record) == record


def test_records_and_reports_need_no_tensor() -> None:
    program = (
        "import sys, bilens.report.reports, bilens.report.html, bilens.report.terminal, "
        "bilens.report.plates; print('torch' in sys.modules)"
    )
    output = subprocess.check_output([sys.executable, "-c", program], text=True)
    assert output.strip() == "False"


@pytest.mark.parametrize(("kind", "make"), SAMPLES.values(), ids=SAMPLES)
def test_a_kind_names_itself_and_reading_changes_nothing(
    kind: type[Document], make: Callable[[], Values]
) -> None:
    document = make()
    assert document["kind"] == kind_of(kind)
    before = copy.deepcopy(document)
    read_document(kind, document)
    assert document == before


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_record_of_a_document_is_in_its_schema(document: type[Document]) -> None:
    found = json.loads(schema(document))["$defs"]
    assert {part.__name__ for part in records_in(document)} == {*found}
    page = tables(document)
    assert all(f"## {name}\n" in page for name in found)


@pytest.mark.parametrize("document", [*DOCUMENTS, "addresses"])
def test_every_field_says_what_it_means(document: type[Document] | str) -> None:
    """Of documents, and of all that the addresses of the explorer take and answer with."""
    if isinstance(document, str):
        found = openapi(ENDPOINTS)["components"]["schemas"]
    else:
        found = json.loads(schema(document))["$defs"]
    for name, record in found.items():
        fields = record.get("properties", {}).items()
        assert not [field for field, one in fields if not one.get("description")], name


def test_no_record_has_a_comment_beside_a_field_which_nothing_reads() -> None:
    files = (Path(module.__file__).parent.glob("*.py") for module in (records, explorer_records))
    text = "\n".join(file.read_text("utf-8") for file in chain(*files))
    fields = re.findall(r"^    \w+: Annotated\[.*", text, re.MULTILINE)
    assert len(fields) > 500
    assert not [one for one in fields if "# " in one.replace("# type: ignore", "")]


def test_addresses_say_what_stands_in_them() -> None:
    described = openapi(ENDPOINTS)
    operations = [one for methods in described["paths"].values() for one in methods.values()]
    schemas = [one["schema"] for operation in operations for one in operation["parameters"]]
    assert schemas
    assert all(one["description"] for one in schemas)
    row = described["components"]["schemas"]["LayerRow"]
    assert row["properties"]["norm"]["description"] == views(LayerRow)["norm"].description


def test_descriptions_are_those_of_the_fields() -> None:
    properties = json.loads(schema(Audit))["$defs"]["Explanation"]["properties"]
    assert properties["index"]["description"].startswith("in the test data, from 0")
    assert views(Explanation)["kind"].description.startswith("why it was chosen: `typical` (median")
    assert {*make_document()} == {*json.loads(schema(Audit))["$defs"]["Audit"]["properties"]}


def test_texts_beside_a_number_are_cleaned_too() -> None:
    found = ColumnChanges((), (), (), (), examples=((1, "a\x1b[2J", "\ud800"),))
    assert displayable(found).examples == ((1, "a\ufffd[2J", "\ufffd"),)
