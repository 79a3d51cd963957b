"""The endpoints of the explorer's JSON: one address each, and their OpenAPI document."""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from inspect import Parameter, signature
from typing import Annotated, Any, get_args, get_type_hints

import msgspec

from bilens import __version__
from bilens.base.errors import UsageError
from bilens.records import Record, schemas_of
from bilens_explorer.folder import ServedFolder
from bilens_explorer.guard import HEADER
from bilens_explorer.inside import ToldError

API = "/api/v1"
BEARER = "The token of `bilens serve --token-file FILE`, in place of the page's secret and origin."
EXPECTED = {"`int`": "a whole number", "`str` matching regex": "a text like"}  # msgspec's words


class Failure(Record, frozen=True):
    """Why there is no answer."""

    error: Annotated[str, "a sentence"]


Arguments = Mapping[str, Any]
User = tuple[str, str] | None  # whom a proxy named, and in which header; None without a proxy
SENT = ("body", "user")  # parameters that no query says
Held = Callable[[ServedFolder], Iterable[Arguments]]


@dataclass(frozen=True)
class Endpoint:
    """One address: what is asked for, and what comes.

    The signature of `find` describes the address: behind the folder it takes by name what stands in
    the path, then what may stand in the query, as `body` what is sent, and as `user` who asks.
    """

    path: str  # below `API`
    find: Callable[..., Record]
    held: Held | None = None  # arguments whose answers a one-file export holds
    slow: str = ""  # the kind of a slow one, of which few are worked on at once
    adds: bool = False  # whether something is kept
    reads: bool = False  # whether what is sent changes nothing, but is too long for a query

    @property
    def answers(self) -> tuple[type[Record], ...]:
        """The records of which one is the answer."""
        found = get_type_hints(self.find)["return"]
        return get_args(found) or (found,)

    @property
    def body(self) -> type[Record] | None:
        """The record that is sent; None where nothing is."""
        return get_type_hints(self.find).get("body")

    @property
    def in_path(self) -> list[str]:
        return re.findall(r"{(\w+)}", self.path)

    @property
    def query(self) -> list[Parameter]:
        """The parameters that may stand in the query, with their types and defaults."""
        return [one for one in query_of(self.find) if one.name not in self.in_path]

    @property
    def address(self) -> re.Pattern[str]:
        return re.compile(API + re.sub(r"{\w+}", "[^/]+", self.path))

    @property
    def method(self) -> str:
        return "GET" if self.body is None else "POST"

    def arguments(
        self, path: Arguments, query: Mapping[str, str], body: bytes, user: User
    ) -> Arguments:
        """Return a request, checked: UsageError for its query, MsgspecError for its body.

        Whom the proxy does not name changes nothing.
        """
        if self.body is not None and not self.reads and user is not None and not user[0]:
            raise ToldError("nobody", header=user[1])
        sent = {} if self.body is None else {"body": msgspec.json.decode(body, type=self.body)}
        known = {"user": user} if "user" in signature(self.find).parameters else {}
        return {**path, **read_query(self.query, query), **sent, **known}


def every_model(served: ServedFolder) -> Iterable[Arguments]:
    """Return the arguments of an endpoint for each model, as a one-file export needs them."""
    return [{"key": key} for key in served.last_walk().models]


def query_of(find: Callable[..., Any]) -> list[Parameter]:
    """Return the parameters of a function behind the folder that a query says, with their types."""
    hints = get_type_hints(find, include_extras=True)
    _, *others = signature(find).parameters.values()
    return [one.replace(annotation=hints[one.name]) for one in others if one.name not in SENT]


def read_query(parameters: Iterable[Parameter], query: Mapping[str, str]) -> dict[str, Any]:
    """Return the values of a query; one that it does not say is the default."""
    found = {}
    for one in parameters:
        if one.name in query:
            found[one.name] = read_value(one.name, query[one.name], one.annotation)
        elif one.default is Parameter.empty:
            raise UsageError(f"the query lacks {one.name}: ask with ?{one.name}=… in the address.")
    return found


def read_value(name: str, text: str, kind: Any) -> Any:
    try:
        return msgspec.convert(text, kind, strict=False)
    except msgspec.ValidationError as error:
        wanted = str(error).removeprefix("Expected ")
        for word, plain in EXPECTED.items():
            wanted = wanted.replace(word, plain)
        raise UsageError(f"{name} is {text!r:.40}; expected {wanted}.") from None


def parameter(endpoint: Endpoint, one: Parameter) -> dict[str, Any]:
    """Return the description of a parameter of an address, in its path or its query."""
    place = "path" if one.name in endpoint.in_path else "query"
    required, schema = one.default is Parameter.empty, msgspec.json.schema(one.annotation)
    schema |= {} if required else {"default": one.default}
    return {"name": one.name, "in": place, "required": required, "schema": schema}


def openapi(endpoints: Iterable[Endpoint]) -> dict[str, Any]:
    """Return the description of all addresses, its schemas from the types of the records."""
    listed = [*endpoints]
    types: set[type[Record]] = {Failure}
    for one in listed:
        types |= {*one.answers} if one.body is None else {*one.answers, one.body}
    ordered = sorted(types, key=lambda kind: kind.__name__)
    references, schemas = schemas_of(ordered, "#/components/schemas/{name}")
    known = dict(zip(ordered, references, strict=True))
    paths: dict[str, Any] = {}
    for one in listed:
        operation: dict[str, Any] = {
            "summary": one.find.__doc__,
            "responses": responses(one, known),
            "parameters": [parameter(one, each) for each in query_of(one.find)],
        }
        if one.body is not None:
            operation["requestBody"] = {"required": True, "content": content(known[one.body])}
            operation["security"] = [{"page": []}, {"script": []}]
        paths.setdefault(f"{API}{one.path}", {})[one.method.lower()] = operation
    schemes = {
        "page": {"type": "apiKey", "in": "header", "name": HEADER},
        "script": {"type": "http", "scheme": "bearer", "description": BEARER},
    }
    about = {"title": "bilens explorer", "version": __version__}
    parts = {"schemas": schemas, "securitySchemes": schemes}
    return {"openapi": "3.1.0", "info": about, "paths": paths, "components": parts}


def responses(one: Endpoint, known: Mapping[type, Any]) -> dict[str, Any]:
    answers = [known[kind] for kind in one.answers]
    schema = answers[0] if len(answers) == 1 else {"anyOf": answers}
    status, told = ("201", "It is kept.") if one.adds else ("200", "What was asked for.")
    failure = {"description": "Why not, in a sentence.", "content": content(known[Failure])}
    answer = {"description": told, "content": content(schema)}
    return {status: answer, "4XX": failure, "5XX": failure}


def content(schema: Any) -> dict[str, Any]:
    return {"application/json": {"schema": schema}}
