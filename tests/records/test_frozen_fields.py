"""Fields of documents are a promise: none is lost or changed within 0.1; new ones have defaults.

Broken once: with a field of an audit renamed, one added without a default, a number made a text.
"""

import copy
import json
from collections.abc import Callable, Iterator
from typing import Any

import msgspec
import pytest

from bilens.records.base import kind_of
from bilens.records.view import records_in
from tools.schema import DOCUMENTS, FROZEN, describe_fields

Fields = dict[str, Any]


def losses(frozen: Fields, found: Fields) -> Iterator[str]:
    """Yield what a reader of frozen documents misses, but for those whose schema_version rose."""
    for kind, document in frozen["documents"].items():
        now = found["documents"].get(kind, {"schema_version": None, "fields": {}})
        if now["schema_version"] is not None and now["schema_version"] > document["schema_version"]:
            continue
        for name, holds in document["fields"].items():
            if not is_as_wide(holds, now["fields"].get(name, "")):
                yield f"{kind}: {name} was {holds}, is {now['fields'].get(name)}"


def is_as_wide(before: str, now: str) -> bool:
    """Whether what a field held may still stand there, and nothing new but further fixed values."""
    old, new = set(before.split(" or ")), set(now.split(" or "))
    return old <= new and all(one.startswith("`") for one in new - old)


def required_fields() -> set[str]:
    return {
        f"{record.__name__}.{field.encode_name}"
        for document in DOCUMENTS
        for record in records_in(document)
        for field in msgspec.structs.fields(record)
        if field.required
    }


@pytest.fixture(scope="module")
def frozen() -> Fields:
    return dict(json.loads(FROZEN.read_text("utf-8")))


def test_fields_are_a_promise(frozen: Fields) -> None:
    assert [*losses(frozen, describe_fields())] == []


def test_every_document_of_bilens_is_on_the_list(frozen: Fields) -> None:
    """Whatever has a `kind`, found among the records; those of the explorer are its own affair."""
    assert {"explanation", "quadratic fit", "inventory"} <= frozen["documents"].keys()
    assert frozen["documents"].keys() == {kind_of(document) for document in DOCUMENTS}


def test_what_is_added_has_a_default(frozen: Fields) -> None:
    """Or this release could not read what an earlier one wrote."""
    known = {name for one in frozen["documents"].values() for name in one["fields"]}
    records = {name.partition(".")[0] for name in known}
    added = {name for name in required_fields() - known if name.partition(".")[0] in records}
    assert not added


def test_another_second_number_asks_for_a_new_list(frozen: Fields) -> None:
    """`python -m tools.schema` writes it, when a release may take away."""
    assert frozen["release"] == describe_fields()["release"]


def take_away(fields: Fields) -> None:
    del fields["ModelFacts.dtype"]


def rename(fields: Fields) -> None:
    fields["ModelFacts.title"] = fields.pop("ModelFacts.dtype")


def change(fields: Fields) -> None:
    fields["ModelFacts.dtype"] = "number"


def narrow(fields: Fields) -> None:
    fields["Audit.read_as"] = '`"classes"`'


def widen(fields: Fields) -> None:
    fields["ModelFacts.dtype"] = "text or null"


@pytest.mark.parametrize("damage", [take_away, rename, change, narrow, widen])
def test_a_loss_is_noticed(frozen: Fields, damage: Callable[[Fields], None]) -> None:
    found = copy.deepcopy(frozen)
    damage(found["documents"]["audit"]["fields"])
    assert len([*losses(frozen, found)]) == 1
    found["documents"]["audit"]["schema_version"] += 1
    assert not [*losses(frozen, found)]


def test_more_fields_and_more_fixed_values_are_none(frozen: Fields) -> None:
    found = copy.deepcopy(frozen)
    found["documents"]["audit"]["fields"]["ModelFacts.colour"] = "text"
    found["documents"]["audit"]["fields"]["Audit.read_as"] += ' or `"cells"`'
    assert not [*losses(frozen, found)]
