"""The schema files: every key of a document is in its schema, and fields say what they mean."""

import json

import pytest

from bilens.records.audit import Audit, Explanation
from bilens.records.base import Document
from report_documents import make_document
from tools.schema import DOCUMENTS, meanings, parts, schema, tables


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_record_of_a_document_is_in_its_schema(document: type[Document]) -> None:
    found = json.loads(schema(document))["$defs"]
    assert {part.__name__ for part in parts(document)} == {*found}
    assert all(f"### {name}\n" in tables(document) for name in found)


def test_fields_say_what_they_mean_behind_or_above_them() -> None:
    properties = json.loads(schema(Audit))["$defs"]["Explanation"]["properties"]
    assert properties["index"]["description"] == "in the test data, from 0"
    assert meanings(Explanation)["kind"].startswith("why it was chosen: `typical` (median lead")
    assert "`asked`" in meanings(Explanation)["kind"]
    assert {*make_document()} == {*json.loads(schema(Audit))["$defs"]["Audit"]["properties"]}
