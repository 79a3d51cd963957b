"""Results that are tables as a DataFrame of pandas, which is loaded when one is asked for."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from enum import Enum
from itertools import product
from typing import Any

from bilens.base.errors import UsageError, optional_package
from bilens.base.notebook import public_fields


def frame(main: str, *axes: str, without: Sequence[str] = ()) -> Callable[[Any], Any]:
    """Return a `to_frame` of a record: a row for each number of `main`, whose axes have names."""

    def to_frame(self: Any) -> Any:
        """Return the numbers as a DataFrame of pandas, one a row.

        Columns are the positions along each axis, counted from 0, and every attribute of the
        record that has a value for each row, or for each place along the axes before the last.

        Raises:
            MissingExtraError: If pandas is not installed.
        """
        shape = tuple(getattr(self, main).shape)
        positions = [*product(*map(range, shape))]
        columns: dict[str, list[object]] = {
            axis: [position[number] for position in positions]
            for number, axis in enumerate(axes[len(axes) - len(shape) :])  # of one form, the last
        }
        for name in dict.fromkeys((main, *public_fields(self))):
            values = getattr(self, name)
            size = (len(values),) if isinstance(values, tuple) else getattr(values, "shape", None)
            if name not in without and size in (shape, shape[:-1]):
                times = shape[-1] if size != shape else 1
                columns[name] = [one for one in flattened(values) for _ in range(times)]
        return frame_of(columns)

    return to_frame


def flattened(values: Any) -> list[object]:
    """Return the values of a tensor, or of a tuple with states by name."""
    if not isinstance(values, tuple):
        return [*values.reshape(-1).tolist()]
    return [one.name.lower() if isinstance(one, Enum) else one for one in values]


def frame_of(table: object) -> Any:
    """Return columns, or a list of rows, as a DataFrame."""
    return optional_package("pandas", "tables", "to_frame").DataFrame(table)


def frame_of_document(document: Mapping[str, Any], table: str | None) -> Any:
    """Return a list of objects in a document as rows; None for the only one."""
    known = dict(tables_in(document))
    if table is None and len(known) == 1:
        (table,) = known
    if table not in known:
        said = "" if table is None else f"there is no table {table!r}: "
        raise UsageError(f"{said}name one of the tables {', '.join(known)}.")
    return optional_package("pandas", "tables", "to_frame").json_normalize(known[table])


def tables_in(document: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the name and the rows of each list of objects."""
    for name, value in document.items():
        if isinstance(value, Mapping):
            yield from tables_in(value, f"{above}{name}.")
        elif isinstance(value, list) and value and isinstance(value[0], Mapping):
            yield f"{above}{name}", value
