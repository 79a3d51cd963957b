"""How results look in a notebook: a short table of shapes, key numbers and what is proven."""

import dataclasses
import math
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from enum import Enum
from html import escape
from operator import attrgetter
from typing import Any, Protocol, SupportsInt, TypeVar, cast, dataclass_transform, runtime_checkable

from bilens.base.errors import UsageError

MOST = 6  # numbers or names that are listed
LONGEST = 120  # characters of a text
Kind = TypeVar("Kind", bound=type)


@runtime_checkable
class ArrayLike(Protocol):
    """A tensor or an array, known by what it can do: torch is not loaded to ask."""

    shape: Sequence[int]
    dtype: object

    def sum(self) -> SupportsInt:
        """Return the sum of all numbers."""

    def tolist(self) -> object:
        """Return the numbers as nested lists."""


class html_summary:  # noqa: N801 - stands for a method
    """A `_repr_html_` that lists attributes of a result, all fields for none; and its `repr`."""

    def __init__(self, *names: str, **renamed: str) -> None:
        self.names, self.renamed = names, renamed

    def __set_name__(self, owner: type, name: str) -> None:
        def line(record: object) -> str:
            return one_line(record, self.rows(record))

        owner.__repr__ = line  # type: ignore[assignment]

    def __get__(self, record: object, owner: type) -> Callable[[], str]:
        return lambda: html_table(type(record).__name__, self.rows(record))

    def rows(self, record: object) -> dict[str, object]:
        known = self.names or (() if self.renamed else public_fields(record))
        rows = {}
        for label, name in ({name: name for name in known} | self.renamed).items():
            with suppress(UsageError):  # this one does not have it: an autoencoder has no layers
                rows[label] = attrgetter(name)(record)
        return rows


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
def frozen_result(*names: str, **renamed: str) -> Callable[[Kind], Kind]:
    """Make a frozen dataclass of a class, equal to itself alone, with an `html_summary`."""

    def freeze(kind: Kind) -> Kind:
        summary = html_summary(*names, **renamed)
        cls: Any = kind
        cls._repr_html_ = summary
        summary.__set_name__(cls, "_repr_html_")  # before the dataclass, which would write a repr
        return cast(Kind, dataclasses.dataclass(frozen=True, eq=False)(cls))

    return freeze


def one_line(record: object, rows: Mapping[str, object] | None = None) -> str:
    """Return a result as one line without its tensors, of all fields where no rows are given."""
    if rows is None:
        rows = {name: getattr(record, name) for name in public_fields(record)}
    said = [f"{label}: {described(value)}" for label, value in rows.items()]
    return f"{type(record).__name__}({'; '.join(said)})"


def public_fields(record: object) -> tuple[str, ...]:
    if dataclasses.is_dataclass(record):
        return tuple(f.name for f in dataclasses.fields(record) if not f.name.startswith("_"))
    return tuple(getattr(record, "_fields", getattr(record, "__struct_fields__", ())))


def html_table(title: str, rows: Mapping[str, object]) -> str:
    """Return a heading and one row for each label; whatever is in it stays text."""
    left = 'style="text-align:left"'
    body = "".join(
        f"<tr><th {left}>{escape(label.replace('_', ' '))}</th>"
        f"<td {left}>{escape(described(value))}</td></tr>"
        for label, value in rows.items()
    )
    return f"<div><strong>{escape(title)}</strong><table>{body}</table></div>"


def described(value: object) -> str:
    if value is None:
        return "—"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, Enum):
        return value.name.lower().replace("_", " ")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, ArrayLike):
        return described_array(value)
    if isinstance(value, Mapping):
        return described([*value])
    if public_fields(value):
        return described_record(value)
    if isinstance(value, Sequence) and not isinstance(value, str):
        return described_sequence(value)
    text = str(value)
    return text if len(text) <= LONGEST else f"{text[: LONGEST - 1]}…"


def described_array(array: ArrayLike) -> str:
    """Return few numbers as they are, of many the shape and type; of yes and no, how many yes."""
    shape, kind = tuple(array.shape), str(array.dtype).removeprefix("torch.")
    count = math.prod(shape)
    if "bool" in kind and count > 1:
        return f"{int(array.sum())} of {count}"
    if count <= MOST and len(shape) <= 1:
        values = array.tolist()
        return described(values if isinstance(values, list) else [values])
    return f"{' × '.join(map(str, shape))}, {kind}"


def described_sequence(values: Sequence[object]) -> str:
    """Return the first values, and how many; of states how many of each, of records how many."""
    if len(values) > 1 and all(isinstance(value, Enum) for value in values):
        counts = Counter(map(described, values))
        return ", ".join(f"{name}: {count}" for name, count in counts.items())
    if len(values) > 1 and public_fields(values[0]):
        return f"{len(values)} × {type(values[0]).__name__}"
    listed = ", ".join(map(described, values[:MOST])) or "none"
    return listed if len(values) <= MOST else f"{listed}, … ({len(values)})"


def described_record(record: object) -> str:
    """Return the numbers of a part of a result, or its type where it has none."""
    numbers = [
        f"{name.replace('_', ' ')} {described(value)}"
        for name in public_fields(record)
        if isinstance(value := getattr(record, name), bool | int | float)
    ]
    return ", ".join(numbers) or type(record).__name__
