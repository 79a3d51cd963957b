"""The explorer's JSON for scripts: one table, which is also its OpenAPI document."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import msgspec

from bilens.records.attack import Attack
from bilens.records.audit import Audit
from bilens.records.base import LARGEST_WHOLE, Record
from bilens.records.conversion import Conversion
from bilens.records.explorer import ModelPage, Overview
from bilens.records.guarantees import Certificate
from bilens.records.history import Action, Entry
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.records.trace import Trace
from bilens.serve.folder import ServedFolder
from bilens.serve.guard import HEADER
from bilens.version import VERSION

API = "/api/v1"
PARAMETERS = {  # of paths
    "key": {"type": "string", "pattern": "^[0-9a-f]{16}$"},
    "number": {"type": "integer", "minimum": 1, "maximum": LARGEST_WHOLE},
}
AUDITS: tuple[type[Record], ...] = (Audit, LayerAudit, TableAudit)
Find = Callable[[ServedFolder, Mapping[str, Any], bytes], Record | None]


class NewEntry(Record, frozen=True, forbid_unknown_fields=True):
    """What is sent to say something of a model; the fields are those of an `Entry`."""

    action: Action
    subject: str
    text: str
    author: str
    until: str | None = None


class Failure(Record, frozen=True):
    """Why there is no answer."""

    error: str  # a sentence


@dataclass(frozen=True)
class Endpoint:
    """One address: what is asked for, and what comes."""

    path: str  # below `API`
    about: str
    answers: tuple[type[Record], ...]  # one of these
    find: Find  # from the folder, what stands in the path, and the body; None where there is none
    body: type[Record] | None = None  # of a request that adds something

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"


def add_entry(served: ServedFolder, path: Mapping[str, Any], body: bytes) -> Entry | None:
    found = served.model(path["key"])
    if found is None:
        return None
    said = msgspec.structs.asdict(msgspec.json.decode(body, type=NewEntry))
    return served.history.say(model=found.model.name, **said)


def audit_record(served: ServedFolder, path: Mapping[str, Any], _body: bytes) -> Record | None:
    found = served.audit(path["number"])
    return None if found is None else found.record


def report_record(served: ServedFolder, path: Mapping[str, Any], _body: bytes) -> Record | None:
    found = served.report(path["key"])
    return None if found is None else found.record


ENDPOINTS = (
    Endpoint(
        "/overview",
        "All models and reports that were found in the folder.",
        (Overview,),
        lambda served, _path, _body: served.overview(),
    ),
    Endpoint(
        "/models/{key}",
        "One model: its audits, and what people said of it.",
        (ModelPage,),
        lambda served, path, _body: served.model(path["key"]),
    ),
    Endpoint(
        "/models/{key}/entries",
        "Add a label, a note, or that a finding is accepted, rejected or open again.",
        (Entry,),
        add_entry,
        NewEntry,
    ),
    Endpoint(
        "/audits/{number}",
        "The document of an audit of the history.",
        AUDITS,
        audit_record,
    ),
    Endpoint(
        "/reports/{key}",
        "A report that lies in the folder.",
        (*AUDITS, Certificate, Attack, Conversion, Trace),
        report_record,
    ),
)


def openapi() -> dict[str, Any]:
    """Return the description of all addresses, its schemas from the types of the records."""
    types: set[type[Record]] = {Failure}
    for one in ENDPOINTS:
        types |= {*one.answers} if one.body is None else {*one.answers, one.body}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    place = "#/components/schemas/{name}"
    references, schemas = msgspec.json.schema_components(ordered, ref_template=place)
    known = dict(zip(ordered, references, strict=True))
    paths: dict[str, Any] = {}
    for one in ENDPOINTS:
        operation: dict[str, Any] = {"summary": one.about, "responses": responses(one, known)}
        names = [name for name in PARAMETERS if f"{{{name}}}" in one.path]
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": PARAMETERS[name]}
            for name in names
        ]
        if one.body is not None:
            operation["requestBody"] = {"required": True, "content": content(known[one.body])}
            operation["security"] = [{"page": []}]
        paths.setdefault(f"{API}{one.path}", {})[one.method.lower()] = operation
    secret = {"type": "apiKey", "in": "header", "name": HEADER}
    return {
        "openapi": "3.1.0",
        "info": {"title": "bilens explorer", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": {"page": secret}},
    }


def responses(one: Endpoint, known: Mapping[type, Any]) -> dict[str, Any]:
    answers = [known[kind] for kind in one.answers]
    schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
    status, told = ("200", "What was asked for.") if one.body is None else ("201", "It is kept.")
    failure = {"description": "Why not, in a sentence.", "content": content(known[Failure])}
    return {
        status: {"description": told, "content": content(schema)},
        "4XX": failure,
        "5XX": failure,
    }


def content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
