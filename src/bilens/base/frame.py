"""Results that are tables as a DataFrame of pandas, which is loaded when one is asked for."""

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

        Raises: MissingExtraError if pandas is not installed.
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
    """Return a list in a document as rows of plain values; None for the only one.

    A list inside a row is a table of its own, that names the rows above by their positions.
    """
    lists = {
        name: rows
        for name, rows in fields_of(document)
        if isinstance(rows, list) and rows and isinstance(rows[0], Mapping)
    }
    known: dict[str, list[dict[str, Any]]] = {}
    for name, rows in lists.items():
        add_rows(known, name, rows, {})
    if table is None and len(lists) == 1:
        (table,) = lists
    if table not in known:
        said = "" if table is None else f"there is no table {table!r}: "
        raise UsageError(f"{said}name one of the tables {', '.join(known)}.")
    return frame_of(known[table])


def fields_of(value: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield what is in an object, and in the objects in it, by dotted names."""
    for name, one in value.items():
        if isinstance(one, Mapping):
            yield from fields_of(one, f"{above}{name}.")
        else:
            yield f"{above}{name}", one


def add_rows(
    known: dict[str, list[dict[str, Any]]], name: str, values: list[Any], above: Mapping[str, int]
) -> None:
    """Add a list to the table of its name, and the lists in it to theirs."""
    own, rows = name.rpartition(".")[2], known.setdefault(name, [])
    for position, value in enumerate(values):
        plain = value if isinstance(value, Mapping) else {own: position, "value": value}
        row = dict(fields_of(plain))
        for field in [field for field, one in row.items() if isinstance(one, list)]:
            add_rows(known, f"{name}.{field}", row.pop(field), {**above, own: position})
        rows.append({**above, **row})
