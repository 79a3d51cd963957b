"""Records: written as JSON, read and checked again, shown anywhere."""

import json
import re
from collections.abc import Mapping, Sequence
from typing import Annotated, Any, Literal, TypeAlias, TypeVar

import msgspec
from msgspec import Meta, Struct

from bilens.base.errors import NonFiniteError, UsageError
from bilens.base.frame import frame_of_document
from bilens.base.notebook import one_line

SCHEMA_VERSION = 1  # of the documents that name no other
LARGEST_WHOLE = 2**63 - 1
Integer = Annotated[int, Meta(ge=-LARGEST_WHOLE, le=LARGEST_WHOLE)]
Count = Annotated[int, Meta(ge=0, le=LARGEST_WHOLE)]
Numbers: TypeAlias = tuple[float, ...]
Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"

LOST = "\ufffd"  # stands for what cannot be shown
# Control characters, lone surrogates and the marks that reverse the reading direction could drive
# a terminal, make a file unreadable or show a name as another one.
UNPRINTABLE = re.compile(
    "[\x00-\x1f\x7f-\x9f\ud800-\udfff\ufffe\uffff\u2028\u2029\u202a-\u202e\u2066-\u2069]"
)
NO_LETTERS: Mapping[str, str] = {}
OLD_KINDS: Mapping[str, Sequence[str]] = {"audit": ("layer_audit", "table")}  # of earlier releases

KINDS = {  # of JSON values, as msgspec names them
    "int": "an integer",
    "float": "a number",
    "str": "a text",
    "bool": "true or false",
    "object": "an object",
    "array": "a list",
    "null": "null",
}
MISSING = re.compile(r"Object missing required field `(.+)`")
EXPECTED = re.compile(r"Expected `([^`]+)`(?: ([^,]+))?(?:, got .*)?")
ENUM = re.compile(r"Invalid enum value (.+)")
STEP = re.compile(r"\.(\w+)|\[(\d+)\]")


class Record(Struct, frozen=True):
    """A part of a document: its fields are the keys of a JSON object."""

    def __repr__(self) -> str:
        return one_line(self)

    def fields(self) -> dict[str, Any]:
        """Return the fields of the record by name, their values as they are."""
        return msgspec.structs.asdict(self)


class Document(Record, frozen=True, kw_only=True):
    """A whole document; a record of this type names its `kind`."""

    schema_version: Annotated[Literal[1], "rises when a key changes name or meaning"] = 1

    def to_frame(self, table: str | None = None) -> Any:
        """Return a table of the document as a DataFrame of pandas; `table` as "guarantees.inputs".

        Raises:
            UsageError: If there is no such table, or none is named of several; it lists them.
            MissingExtraError: If pandas is not installed.
        """
        return frame_of_document(to_json(self), table)


AnyDocument = TypeVar("AnyDocument", bound=Document)
Shown = TypeVar("Shown")


def require(condition: bool, fault: str) -> None:
    """Refuse a record that does not fit together; to be used in `__post_init__`."""
    if not condition:
        raise UsageError(fault)


def kind_of(document: type[Document]) -> str:
    """Return the kind that a type of document names itself by."""
    return str(default_of(document, "kind"))


def default_of(document: type[Document], name: str) -> object:
    """Return the default of a field of a type of document."""
    fields = msgspec.structs.fields(document)
    return next(field.default for field in fields if field.name == name)


def json_text(value: object) -> str:
    """Return a record, or JSON values, as JSON on one line of ASCII: safe whatever the encoding."""
    try:
        plain = msgspec.to_builtins(value, str_keys=True)
        return json.dumps(plain, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise NonFiniteError(f"the document cannot be written as JSON: {error}.") from None
    except TypeError as error:
        raise UsageError(f"the document is not JSON: {error}.") from None


def to_json(record: Record) -> dict[str, Json]:
    """Return a record as JSON values of its own."""
    values: dict[str, Json] = json.loads(json_text(record))
    return values


def read_document(kind: type[AnyDocument], document: object) -> AnyDocument:
    """Return JSON values as a document, checked; each fault is told with the name of the field."""
    name, version = kind_of(kind), default_of(kind, "schema_version")
    if isinstance(document, Mapping) and document.get("kind") in OLD_KINDS.get(name, ()):
        raise UsageError(
            f"a document of kind {document['kind']!r} is of an earlier release: this one writes "
            f"every audit as kind {name!r}: audit again, or use the release that wrote it."
        )
    if not isinstance(document, Mapping) or document.get("kind") != name:
        found = document.get("kind") if isinstance(document, Mapping) else type(document).__name__
        article = "an" if name[0] in "aeiou" else "a"
        raise UsageError(f"{article} {name} document was expected, got one of kind {found!r}.")
    written = document.get("schema_version")
    if written != version or isinstance(written, bool):
        raise UsageError(
            f"the {name} document has schema_version {written!r}; this release reads "
            f"{version}: use the release of bilens that wrote it, or write it again."
        )
    values = json.loads(json_text(document))
    try:
        return msgspec.convert(values, kind)
    except msgspec.ValidationError as error:
        raise UsageError(f"{name} document, {located(str(error), values)}") from None


def located(message: str, document: Json) -> str:
    """Return a fault found by msgspec as "field: what was expected, got what."."""
    fault, _, path = message.partition(" - at `$")
    location = path.removesuffix("`").removeprefix(".")
    where = location or "top level"
    if missing := MISSING.fullmatch(fault):
        return f"{where}: {missing[1]!r} is missing."
    if expected := EXPECTED.fullmatch(fault):
        wanted = " or ".join(KINDS.get(kind, kind) for kind in expected[1].split(" | "))
        bound = "" if expected[2] is None else f" {expected[2].replace('>=', 'of at least')}"
        return f"{where}: {wanted}{bound} was expected, got {value_at(document, location)!r:.40}."
    if other := ENUM.fullmatch(fault):
        return f"{where}: {other[1]:.40} is not one of the values that are known."
    return f"{where}: {fault}; it cannot be drawn."


def value_at(document: Json, location: str) -> Json:
    """Return the value at a path such as `classes[0].index`; the nearest that can be reached."""
    for name, index in STEP.findall(f".{location}"):
        if isinstance(document, dict) and name in document:
            document = document[name]
        elif isinstance(document, list) and index:
            document = document[int(index)]
    return document


def displayable(value: Shown, letters: Mapping[str, str] = NO_LETTERS) -> Shown:
    """Return a copy of a record, or of JSON values, with letters replaced and no `UNPRINTABLE`."""
    replaced = str.maketrans(dict(letters))

    def shown(item: object) -> object:
        if isinstance(item, str):
            return UNPRINTABLE.sub(LOST, item.translate(replaced))
        if isinstance(item, list):
            return [shown(part) for part in item]
        if isinstance(item, tuple):
            ends = (*item[:1], *item[-1:])
            numbers = all(isinstance(end, float | int) for end in ends)
            return item if numbers else tuple(shown(part) for part in item)
        if isinstance(item, dict):
            return {shown(key): shown(part) for key, part in item.items()}
        if isinstance(item, Record):
            names = item.__struct_fields__
            return type(item)(**{name: shown(getattr(item, name)) for name in names})
        return item

    return shown(value)  # type: ignore[return-value]
