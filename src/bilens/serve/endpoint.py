"""What one address of the explorer's JSON is, and the OpenAPI document of all of them."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, get_args, get_type_hints

import msgspec

from bilens.base.errors import UsageError
from bilens.records.base import LARGEST_WHOLE, Record
from bilens.serve.folder import ServedFolder
from bilens.serve.guard import HEADER
from bilens.version import VERSION

API = "/api/v1"
BEARER = "The token of `bilens serve --token-file FILE`, in place of the page's secret and origin."
Schema = Mapping[str, Any]
KEY: Schema = {"type": "string", "pattern": "^[0-9a-f]{16}$"}
PARAMETERS: Mapping[str, Schema] = {  # of paths
    "key": KEY,
    "number": {"type": "integer", "minimum": 1, "maximum": LARGEST_WHOLE},
}


class Failure(Record, frozen=True):
    """Why there is no answer."""

    error: str  # a sentence


@dataclass(frozen=True)
class Asked:
    """What stands in the path and, checked, in the query and the body of a request."""

    path: Mapping[str, Any]
    query: Mapping[str, Any] = field(default_factory=dict)
    body: Any = None  # of the endpoint's type


Find = Callable[[ServedFolder, Asked], Record]
Held = Callable[[ServedFolder], Iterable[Asked]]


@dataclass(frozen=True)
class Endpoint:
    """One address: what is asked for, and what comes."""

    path: str  # below `API`
    find: Find  # its docstring and its return type describe the address
    body: type[Record] | None = None  # of a POST
    # integers and texts; `default` or not
    query: Mapping[str, Schema] = field(default_factory=dict)
    held: Held | None = None  # paths and queries that a one-file export holds the answers to
    slow: str = ""  # the kind of a slow one, of which few are worked on at once
    adds: bool = False  # whether something is kept; else a body is only too long for a query

    @property
    def answers(self) -> tuple[type[Record], ...]:
        """The records of which one is the answer."""
        found = get_type_hints(self.find)["return"]
        return get_args(found) or (found,)

    @property
    def address(self) -> re.Pattern[str]:
        return re.compile(API + re.sub(r"{\w+}", "[^/]+", self.path))

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"

    def asked(self, path: Mapping[str, Any], query: Mapping[str, str], body: bytes = b"") -> Asked:
        """Return a request, checked: UsageError for its query, MsgspecError for its body.

        What it does not say is the default.
        """
        values = {name: read_value(name, query.get(name), self.query[name]) for name in self.query}
        read = None if self.body is None else msgspec.json.decode(body, type=self.body)
        return Asked(path, values, read)


def every_model(served: ServedFolder) -> Iterable[Asked]:
    """Return what a one-file export holds of each model of the folder."""
    return [Asked({"key": key}) for key in served.found().models]


def read_value(name: str, text: str | None, schema: Schema) -> Any:
    """Return one value of a query."""
    if text is None:
        if "default" not in schema:
            raise UsageError(f"the query lacks {name}: ask with ?{name}=… in the address.")
        return schema["default"]
    if schema["type"] == "integer":
        low, high = schema["minimum"], schema["maximum"]
        if re.fullmatch(r"\d{1,18}", text, re.ASCII) and low <= int(text) <= high:
            return int(text)
        raise UsageError(f"{name} is {text!r:.40}; expected a whole number from {low} to {high}.")
    known = schema.get("enum")
    fits = len(text) <= schema.get("maxLength", 200) and (known is None or text in known)
    if not fits or not re.search(schema.get("pattern", ""), text):
        expected = "a text" if known is None else f"one of {', '.join(known)}"
        expected += f" like {schema['pattern']}" if "pattern" in schema else ""
        raise UsageError(f"{name} is {text!r:.40}; expected {expected}.")
    return text


def openapi(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the description of all addresses, its schemas from the types of the records."""
    listed = [*endpoints]
    types: set[type[Record]] = {Failure}
    for one in listed:
        types |= {*one.answers} if one.body is None else {*one.answers, one.body}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    place = "#/components/schemas/{name}"
    references, schemas = msgspec.json.schema_components(ordered, ref_template=place)
    known = dict(zip(ordered, references, strict=True))
    paths: dict[str, Any] = {}
    for one in listed:
        operation: dict[str, Any] = {
            "summary": one.find.__doc__,
            "responses": responses(one, known),
        }
        operation["parameters"] = [
            {"name": name, "in": "path", "required": True, "schema": schema}
            for name, schema in PARAMETERS.items()
            if f"{{{name}}}" in one.path
        ] + [
            {"name": name, "in": "query", "required": "default" not in schema, "schema": schema}
            for name, schema in one.query.items()
        ]
        if one.body is not None:
            operation["requestBody"] = {"required": True, "content": content(known[one.body])}
            operation["security"] = [{"page": []}, {"script": []}]
        paths.setdefault(f"{API}{one.path}", {})[one.method.lower()] = operation
    schemes = {
        "page": {"type": "apiKey", "in": "header", "name": HEADER},
        "script": {"type": "http", "scheme": "bearer", "description": BEARER},
    }
    return {
        "openapi": "3.1.0",
        "info": {"title": "bilens explorer", "version": VERSION},
        "paths": paths,
        "components": {"schemas": schemas, "securitySchemes": schemes},
    }


def responses(one: Endpoint, known: Mapping[type, Any]) -> dict[str, Any]:
    answers = [known[kind] for kind in one.answers]
    schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
    status, told = ("201", "It is kept.") if one.adds else ("200", "What was asked for.")
    failure = {"description": "Why not, in a sentence.", "content": content(known[Failure])}
    return {
        status: {"description": told, "content": content(schema)},
        "4XX": failure,
        "5XX": failure,
    }


def content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
