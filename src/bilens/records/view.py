"""What a field of a record is and how it is shown: schema, pages, tables and help read it here."""

from dataclasses import dataclass
from functools import cache

import msgspec

from bilens.records.base import Record


@dataclass(frozen=True)
class View:
    """The description of a field, in `Annotated[float, View(…)]`; a plain text is one of words."""

    description: str


@cache
def views(record: type[Record]) -> dict[str, View]:
    """Return the view of each field of a record that has one, by the name of the field."""
    found = {}
    for field in msgspec.structs.fields(record):
        for one in getattr(field.type, "__metadata__", ()):
            if isinstance(one, View | str):
                found[field.name] = View(one) if isinstance(one, str) else one
    return found
