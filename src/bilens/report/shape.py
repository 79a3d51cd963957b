"""Which keys a JSON document has and of which kind each value is: checked once, then relied on."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from bilens.base.errors import NonFiniteError, UsageError

Document = dict[str, Any]  # JSON values only

TEXT, NUMBER, INTEGER = "a text", "a number", "an integer"
COUNT, FLAG = "an integer of at least 0", "true or false"
OBJECT: dict[str, Any] = {}  # whatever its keys
LARGEST_WHOLE = 2**63


class Optional:
    """A value that may be null; `added` later, it may be absent from an earlier document."""

    def __init__(self, shape: Any, *, added: bool = False) -> None:
        self.shape, self.added = shape, added


def checked_copy(
    document: Mapping[str, Any], kind: str, version: int, shape: dict[str, Any]
) -> Document:
    """Return a document as plain JSON values of its own, of the right kind, version and shape.

    Raises:
        UsageError: If it is of another kind, of a later schema, or a value is absent or of
            another kind.
        NonFiniteError: If a number is NaN or infinite.
    """
    if not isinstance(document, Mapping) or document.get("kind") != kind:
        found = document.get("kind") if isinstance(document, Mapping) else type(document).__name__
        article = "an" if kind[0] in "aeiou" else "a"
        raise UsageError(f"{article} {kind} document was expected, got one of kind {found!r}.")
    written = document.get("schema_version")
    if written != version or isinstance(written, bool):
        raise UsageError(
            f"the {kind} document has schema_version {written!r}; this release reads "
            f"{version}: use the release of bilens that wrote it, or write it again."
        )
    copy: Document = json.loads(json_text(document))
    check_shape(copy, shape, "", kind)
    return copy


def json_text(document: Mapping[str, Any]) -> str:
    """Return a document as JSON on one line, in ASCII: safe whatever the encoding and the names.

    Raises:
        NonFiniteError: If a number is NaN or infinite.
        UsageError: If a value is not a JSON value.
    """
    try:
        return json.dumps(document, allow_nan=False, separators=(",", ":"))
    except ValueError as error:
        raise NonFiniteError(f"the document cannot be written as JSON: {error}.") from None
    except TypeError as error:
        raise UsageError(f"the document is not JSON: {error}.") from None


def check_shape(value: Any, shape: Any, place: str, kind: str) -> None:
    """Refuse a value that is not what the shape asks for, naming the kind of document and place.

    What was added to the schema later is filled in as null where it is absent.
    """
    if isinstance(shape, Optional):
        if value is None:
            return
        shape = shape.shape
    if isinstance(shape, dict):
        if not isinstance(value, dict):
            raise UsageError(f"{kind} document, {place or 'top level'}: an object was expected.")
        for key, inner in shape.items():
            if key not in value and isinstance(inner, Optional) and inner.added:
                value[key] = None
            if key not in value:
                raise UsageError(f"{kind} document, {place or 'top level'}: {key!r} is missing.")
            check_shape(value[key], inner, f"{place}.{key}" if place else key, kind)
    elif isinstance(shape, list):
        if not isinstance(value, list):
            raise UsageError(f"{kind} document, {place}: a list was expected.")
        for index, item in enumerate(value):
            check_shape(item, shape[0], f"{place}[{index}]", kind)
    elif not is_of_kind(value, shape):
        raise UsageError(f"{kind} document, {place}: {shape} was expected, got {value!r:.40}.")


def is_of_kind(value: Any, kind: str) -> bool:
    """Return whether a JSON value is a text, a number, a whole number or a flag."""
    if kind == NUMBER:
        return type(value) is float or (type(value) is int and abs(value) < LARGEST_WHOLE)
    if kind in (COUNT, INTEGER):
        least = 0 if kind == COUNT else -LARGEST_WHOLE
        return type(value) is int and least <= value < LARGEST_WHOLE
    return type(value) is (bool if kind == FLAG else str)


def require(condition: bool, fault: str) -> None:
    """Refuse a document that does not fit together."""
    if not condition:
        raise UsageError(f"document: {fault}; it cannot be drawn.")
