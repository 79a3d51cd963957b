"""Description of a record's field, and how it is shown: read by schema, pages, tables and help."""

import typing
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from typing import Any, Literal

import msgspec

from bilens.records.base import Record

# How a number is shown, and so of which type it is: `count` and `whole` as a whole number, the
# first one being one; `points` in percentage points, `per_mille` as how many of 1,000; the `share`s
# of a sentence as percentages that add up; `relative` in percent with three digits; `interval` as
# the ends of a null interval, `usual` with its median. A `cell` is one of data, or its row.
Words = Literal["text", "mode", "source", "kinds"]
Counts = Literal["count", "whole", "number or name", "cell"]
Shares = Literal["percent", "per_mille", "share", "relative", "points", "cosine", "r_squared"]
Sizes = Literal["fixed1", "fixed2", "fixed3", "fixed5", "quantity", "signed", "scientific"]
Intervals = Literal["interval", "usual"]
Format = Words | Counts | Shares | Sizes | Intervals


@dataclass(frozen=True)
class View:
    """Description of a field, in `Annotated[float, View(…)]`; a plain text there is one, too.

    Its heading in tables is `field.RECORD.NAME` of the catalogue.
    """

    description: str
    format: Format = "text"
    better: Literal["higher", "lower"] | None = None
    # Where a field holds rows, cells or answers of data: what stands there for readers who are not
    # to have these.
    instead: Any = ...

    @property
    def meaning(self) -> str:
        """The description, and which way the number is better where that is so."""
        return self.description + (f"; {self.better} is better" if self.better else "")


@cache
def views(record: type[Record]) -> dict[str, View]:
    """Return the view of each field of a record that has one, by the name of the field."""
    found = {}
    for field in msgspec.structs.fields(record):
        for one in getattr(field.type, "__metadata__", ()):
            if isinstance(one, View | str):
                found[field.name] = View(one) if isinstance(one, str) else one
    return found


@cache
def field_at(record: type[Record], path: str) -> tuple[type[Record], str]:
    """Return the record of the last field of a path such as `outputs.pairs.0`, and its name."""
    name, _, rest = path.partition(".")
    kinds = {field.name: field.type for field in msgspec.structs.fields(record)}
    rest = rest.lstrip("0123456789.")
    return field_at(next(records_in(kinds[name])), rest) if rest else (record, name)


def records_in(kind: Any, seen: set[Any] | None = None) -> Iterator[type[Record]]:
    """Yield the records that a type is made of, and those in them, once, in order of fields."""
    seen = set() if seen is None else seen
    if isinstance(kind, type) and issubclass(kind, Record) and kind not in seen:
        seen.add(kind)
        yield kind
        for field in msgspec.structs.fields(kind):
            yield from records_in(field.type, seen)
    for inner in typing.get_args(kind):
        yield from records_in(inner, seen)


def schemas_of(kinds: Sequence[type[Record]], place: str) -> tuple[Any, dict[str, Any]]:
    """Return references to records, and by name their schemas, with what each field means."""
    references, found = msgspec.json.schema_components(kinds, ref_template=place)
    seen = set[Any]()
    for record in (part for kind in kinds for part in records_in(kind, seen)):
        fields = found[record.__name__]["properties"]
        for field in msgspec.structs.fields(record):
            fields[field.encode_name]["description"] = views(record)[field.name].description
    return references, found


def value_at(record: Any, path: str) -> Any:
    """Look up a value by its path from a record; None where a part on the way is None."""
    for name in path.split("."):
        if record is not None:
            record = record[int(name)] if name.isdigit() else getattr(record, name)
    return record
