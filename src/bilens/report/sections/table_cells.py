"""Texts of the cells of a row, from the inputs that they became, and of what was done to them."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime, timedelta

from bilens.data.column_numbers import value_at
from bilens.records.base import displayable
from bilens.records.column_readings import CellConversion, TableColumn, TableReading, names_of
from bilens.report.text import NONE, Catalogue, load_catalogue, quantity

MISSING = "(missing)"  # behind a column: the input that says that its cell is empty


def cell_text(column: TableColumn, values: Mapping[str, float]) -> str:
    """Return the value that the inputs of a column hold; nothing where they hold none."""
    days = values.get(f"{column.name}: days since {column.first}")
    if column.kind == "category":
        on = [name.removeprefix(f"{column.name}=") for name in column.inputs if values[name] == 1]
        return "" if MISSING in on else [NONE, *on][-1]
    if days is not None:
        hour = timedelta(hours=values.get(f"{column.name}: hour", 0.0), days=round(days))
        moment = datetime.fromisoformat(column.first) + hour
        return f"{moment:%Y-%m-%d %H:%M}".removesuffix(" 00:00")
    if column.curve:
        rank = values[names_of(column)[0]]
        return f"{quantity(value_at(rank, column.curve), 4)} {column.unit}".rstrip()
    if column.name in values:  # and not whether it is missing alone
        return f"{quantity(values[column.name], 4)} {column.unit}".rstrip()
    return ""


def input_labels(
    reading: TableReading | None, names: Sequence[str], row: Sequence[float]
) -> tuple[str, ...]:
    """Return a label for each input of a row: a column of numbers with the value of its cell."""
    values, found = dict(zip(names, row, strict=True)), {name: name for name in names}
    columns = [TableColumn(name, "number", (name,)) for name in names]
    for one in columns if reading is None else reading.columns:
        name = names_of(one)[0]
        if one.kind == "number" and name in values:
            found[name] = f"{one.name} = {cell_text(one, values)}"
    return tuple(found.values())


def conversion_lines(t: Catalogue, done: Iterable[CellConversion]) -> list[str]:
    return [t(f"reading.{one.kind}", **one.values) for one in done] or [t("table.reading.plain")]


def lines_on(done: Sequence[CellConversion]) -> list[str]:
    """Return sentences on conversions and on the choice of a fit, in English; one if none is."""
    return conversion_lines(load_catalogue("en"), displayable(done))
