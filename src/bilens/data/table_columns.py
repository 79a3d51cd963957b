"""How a column of a table becomes numbers: decided on the table of the training, applied to any."""

import hashlib
import math
import re
from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date, datetime
from functools import lru_cache

from msgspec import structs

from bilens.base.errors import DataError
from bilens.data.cells import (
    DECIMAL,
    LARGEST,
    ORDER,
    PLAIN,
    Question,
    hours_of,
    is_missing,
    is_nearly_all,
    parse_date,
    parse_number,
    plain_number,
)
from bilens.data.column_numbers import Curve, follow_curve, odd_numbers
from bilens.data.table_file import RawTable
from bilens.records.column_readings import OTHER, CellConversion, TableColumn, names_of

MOST_LEVELS = 20  # texts of a column that become an indicator each; rare ones of more share one
DISTINCT = 0.5  # share of different texts from which a column names rows and is left out
MISSING = "(missing)"
MARKS = ("%", "‰")  # a number without its mark is another number
UNIT_SCALES = (  # units of one quantity, by their size
    {"mg": 1e-3, "g": 1.0, "kg": 1e3, "t": 1e6},
    {"mm": 1e-3, "cm": 1e-2, "m": 1.0, "km": 1e3},
    {"ml": 1e-3, "l": 1.0},
    {"h": 1.0, "時間": 1.0, "min": 1 / 60, "分": 1 / 60, "秒": 1 / 3600},
    {"‰": 1e-3, "%": 1e-2},
    {"円": 1.0, "千円": 1e3, "万円": 1e4, "百万円": 1e6, "億円": 1e8},
)
Parts = dict[str, list[float]]  # input → its number in each row; NaN for what is not known


@dataclass
class Cells:
    """The cells of one column, where they stand, and what was done to them so far."""

    table: RawTable
    name: str
    instead: str = "leave the rows out"  # of repairing a cell
    is_target: bool = False  # each cell holds a value, whatever it says
    done: list[CellConversion] = field(default_factory=list)
    gone: list[bool] = field(default_factory=list)  # whether each cell was read as no value

    def __post_init__(self) -> None:
        every = [*zip(self.table.numbers, self.table.column(self.name), strict=True)]
        gone = set() if self.is_target else {c for _, c in every if is_missing(c)}
        self.every = [(row, None if cell in gone else cell) for row, cell in every]
        self.places = [(row, cell) for row, cell in self.every if cell is not None]
        self.known = [cell for _, cell in self.places]

    def say(self, kind: str, /, **values: int | str) -> None:
        self.done.append(CellConversion.of_kind(kind, column=self.name, **values))

    def decimal(self, votes: Counter[str], column: TableColumn | None = None) -> str:
        """Return the decimal mark of a column; `column` says how it was in training.

        A mark that would stand for thousands, and did so nowhere in training, is a new way of
        writing: it is read as this file's separator lets one expect, and not as in training.
        """
        guess, usual = "," if self.table.separator == ";" else ".", column.decimal if column else ""
        is_new = column is not None and not column.groups and bool(usual) and self.has_groups(usual)
        keeps = usual and not (is_new and column and column.groups is False)
        told = is_new or usual != guess
        return self.settled(DECIMAL, votes, usual if keeps else guess, usual, told)

    def has_groups(self, decimal: str) -> bool:
        """Tell whether a mark stands for thousands, with the other one before decimals."""
        between = r"\d,\d" if decimal == "." else r"\d\.\d"
        cells = (c for c in self.known if re.search(between, c.translate(PLAIN)))
        return any(parse_number(cell, decimal) is not None for cell in cells)

    def order(self, votes: Counter[str], usual: str = "") -> str:
        """Return whether day or month stands first; what is always the same is rather the day."""
        sure: dict[str, tuple[int, str]] = {}
        for row, cell in self.places:
            for choice in ORDER.sure(cell):
                sure.setdefault(choice, (row, cell))
        if len(sure) > 1:
            (choice, (row, cell)), (_, odd) = sure.items()
            wanted = f"the {choice} first, as in row {row} ({cell[:40]!r})"
            raise self.refused(*odd, f"{wanted}: write dates as 2024-12-31")
        days = {day.day for cell in self.known if "/" in cell and (day := parse_date(cell))}
        is_day = self.table.separator == ";" or len(days) < min(2, len({*self.known}))
        guess = "day" if is_day else "month"
        return next(iter(sure), None) or self.settled(ORDER, votes, usual or guess, usual)

    def settled(
        self, question: Question, votes: Counter[str], guess: str, usual: str, told: bool = False
    ) -> str:
        """Return how a column is read, and say it where it is a guess, or not as in training.

        A guess that is the `usual` of the training is one where it is to be `told`.
        """
        choice, is_guess = question.decide(self.known, votes, guess)
        other = usual not in ("", choice) and not question.votes(self.known)
        text = next(filter(question.is_open, self.known), None)
        if text is not None and (other or (is_guess and (told or not usual))):
            found = question.parse(text, choice)
            value = f"{found[0]:.15g}" if isinstance(found, tuple) else str(found)
            self.say(question.kind, text=text[:40], value=value.removesuffix(" 00:00:00"))
        return choice

    def to_save(self, question: Question, votes: Counter[str], choice: str) -> str:
        """Return the choice to keep for new tables; empty where this table does not show it."""
        first, second = question.choices
        is_shown = votes[first] != votes[second] or any(map(question.is_open, self.known))
        return choice if is_shown else ""

    def refused(self, row: int, cell: str, expected: str) -> DataError:
        return DataError(
            f"{self.table.path}: row {row} has {cell[:40]!r} in column {self.name!r}; expected "
            f"{expected}, or {self.instead}."
        )

    def refuse_several(self, names: Sequence[str], find: Callable[[str], list[int]]) -> None:
        """Refuse a cell that may mean more than one of some names."""
        for row, cell in self.places:
            if len(found := find(cell)) > 1:
                alike = " and ".join(repr(names[at]) for at in found[:4])
                wanted = f"the exact text of one of {alike}, which are spelt alike"
                raise self.refused(row, cell, wanted)

    def texts(self, key: Callable[[str], Hashable] | None = None) -> list[str]:
        """Return the texts of the cells, each in its most frequent spelling; numbers by a `key`."""
        found: dict[Hashable, str] = {}
        alike = key or spelling_key
        for cell, _ in Counter(self.known).most_common():
            found.setdefault(alike(cell), cell)
        texts = [found[alike(cell)] for cell in self.known]
        other = [pair for pair in zip(self.known, texts, strict=True) if pair[0] != pair[1]]
        if other:
            about = {"text": other[0][0][:40], "value": other[0][1][:40]}
            self.say("merged.number" if key else "merged", count=len(other), **about)
        return texts

    def refuse_odd_numbers(self) -> None:
        """Refuse what Python alone reads as a number, such as 1_0, among numbers."""
        odd, plain = [], sum(parse_number(cell, ".") is not None for cell in self.known)
        for row, cell in self.places:
            if parse_number(cell, ".") is None and (plain or "_" not in cell):
                with suppress(ValueError):
                    float(cell)
                    odd.append((row, cell))
        if odd and plain + len(odd) >= len(self.known) / 2:
            wanted = f"a number in plain digits, such as 10 or 1e-3, of at most {LARGEST:g}"
            raise self.refused(*odd[0], f"{wanted}: repair the cell")


def votes_of(table: RawTable) -> Counter[str]:
    """Return how many cells of a table can be read in one way only, for each question."""
    cells = [cell for row in table.rows for cell in row]
    return DECIMAL.votes(cells) + ORDER.votes(cells)


def fitted_column(cells: Cells, votes: Counter[str]) -> tuple[TableColumn, Parts]:
    """Return how a column is read, and its inputs; it has none where it says nothing."""
    cells.refuse_odd_numbers()
    found = number_column(cells, votes) or date_column(cells, votes) or category_column(cells)
    if not found.identifier:
        found = structs.replace(found, inputs=(*names_of(found), f"{cells.name}={MISSING}"))
    parts = {name: part for name, part in encoded(cells, found, votes).items() if varies(part)}
    if not parts and not found.identifier:
        cells.say("constant")
    return structs.replace(found, inputs=tuple(parts)), parts


def varies(part: Iterable[float]) -> bool:
    return len({value for value in part if not math.isnan(value)}) > 1


def number_column(cells: Cells, votes: Counter[str]) -> TableColumn | None:
    """Return a column of numbers, whatever their marks and unit; None if it is none."""
    if all(len(cell) == len("20240105") and parse_date(cell) for cell in cells.known):
        return None
    decimal = cells.decimal(votes)
    parsed = [parse_number(cell, decimal) for cell in cells.known]
    if not is_nearly_all(parsed):
        return None
    units = Counter(one[1] for one in parsed if one is not None)
    named = [unit for unit, _ in units.most_common() if unit]
    unit = named[0] if named else ""
    pairs = [(place, one) for place, one in zip(cells.places, parsed, strict=True) if one]
    if len(named) > 1 or (unit in MARKS and units[""]):
        (row, cell), _ = next(pair for pair in pairs if pair[1][1] != unit)
        raise cells.refused(row, cell, f"the same unit, {unit}, in every cell: convert the column")
    told = [(cell, one[0]) for (_, cell), one in pairs if plain_number(cell) != one[0]]
    if told:
        text, value = told[0]
        kind = "number.unit" if unit else "number"
        cells.say(kind, text=text[:40], value=f"{value:.15g}", unit=unit)
    cells.done += odd_numbers(cells.name, [one[0] for _, one in pairs])
    saved, groups = cells.to_save(DECIMAL, votes, decimal), cells.has_groups(decimal)
    return TableColumn(cells.name, "number", (), unit, saved, groups)


def date_column(cells: Cells, votes: Counter[str]) -> TableColumn | None:
    """Return a column of dates, to be taken apart; None if it is none."""
    if not is_nearly_all([parse_date(cell) or parse_date(cell, "month") for cell in cells.known]):
        return None
    order = cells.order(votes)
    known = [day.date() for cell in cells.known if (day := parse_date(cell, order)) is not None]
    first = min(known).isoformat()
    cells.say("dates", first=first, last=max(known).isoformat())
    order = cells.to_save(ORDER, votes, order)
    return TableColumn(cells.name, "date", (), first=first, order=order)


def category_column(cells: Cells) -> TableColumn:
    """Return a column of texts, an indicator for each; rare ones of many share one."""
    counts = Counter(cells.texts())
    if len(cells.known) > MOST_LEVELS and len(counts) > DISTINCT * len(cells.known):
        cells.say("codes", count=len(counts))
        return TableColumn(cells.name, "category", (), identifier=True)
    levels, merged = sorted(counts), tuple[str, ...]()
    if len(levels) > MOST_LEVELS:
        levels = sorted(level for level, _ in counts.most_common(MOST_LEVELS - 1))
        cells.say("grouped", count=len(counts), kept=len(levels))
        merged = tuple(sorted(text_hash(text) for text in counts.keys() - {*levels}))
        levels.append(OTHER)
    return TableColumn(cells.name, "category", (), levels=tuple(levels), merged=merged)


@lru_cache(1 << 16)
def spelling_key(cell: str) -> str:
    """Return a text without what people do not see: case, width and spaces."""
    return " ".join(cell.translate(PLAIN).split()).casefold()


def label_key(name: str) -> str:
    """Return by what a name is known that may be a number: "9" and "9.0" are one label."""
    number = plain_number(name.strip())
    return spelling_key(name) if number is None else repr(number)


@lru_cache(64)
def name_finder(
    names: tuple[str, ...], *keys: Callable[[str], Hashable]
) -> Callable[[str], list[int]]:
    """Return a function: text → positions of the names it may mean, several where they are alike.

    The keys are tried one after the other; those names count that the first one finds which finds
    any. So a name is found by its exact text even where others are spelt like it.
    """
    places = [defaultdict[Hashable, list[int]](list) for _ in keys]
    for key, known in zip(keys, places, strict=True):
        for at, name in enumerate(names):
            known[key(name)].append(at)
        known.pop(None, None)

    def find(text: str) -> list[int]:
        found = (known.get(key(text)) for key, known in zip(keys, places, strict=True))
        return next(filter(None, found), [])

    return find


def levels_of(column: TableColumn) -> Callable[[str], list[int]]:
    """Return a function: cell → levels it may mean; cells are without spaces around them."""
    return name_finder(column.levels, str.strip, spelling_key)


def text_hash(cell: str) -> str:
    """Return by what a rare text is known again, however it is spelt."""
    return hashlib.sha256(spelling_key(cell).encode()).hexdigest()[:8]


def unseen_texts(cells: Iterable[str], column: TableColumn) -> set[str]:
    """Return the texts that no row of the training held, as far as the column says it."""
    find, merged = levels_of(column), {*(column.merged or ())}
    new = {cell for cell in cells if not find(cell)}
    if OTHER not in column.levels:
        return new
    return {cell for cell in new if column.merged is not None and text_hash(cell) not in merged}


def read_by_curve(column: TableColumn, curve: Curve) -> TableColumn:
    """Return a column of numbers whose input is their rank; without a curve as it is."""
    if not curve:
        return column
    ranked = structs.replace(column, curve=curve)
    renamed = {column.name: names_of(ranked)[0]}
    return structs.replace(ranked, inputs=tuple(renamed.get(one, one) for one in column.inputs))


def curves_of(columns: Iterable[TableColumn]) -> dict[str, Curve]:
    """Return the curve of each input, and empty ones."""
    every = ((name, one) for one in columns for name in one.inputs)
    return {name: one.curve if name == names_of(one)[0] else () for name, one in every}


def number_in(column: TableColumn, parsed: tuple[float, str] | None) -> float | None:
    """Return a number in the unit of a column; None for one of another unit."""
    known = (column.unit,) if column.unit in MARKS else ("", column.unit)
    return None if parsed is None or parsed[1] not in known else parsed[0]


def parts_of(cell: str, column: TableColumn, choice: str) -> tuple[float, ...] | None:
    """Return the inputs of a cell, all 0 for an unknown text; None where it is of another kind."""
    if column.kind == "number":
        number = number_in(column, parse_number(cell, choice))
        return None if number is None else (number,)
    if column.kind == "date":
        day = parse_date(cell, choice)
        if day is None:
            return None
        days = (day - datetime.fromisoformat(column.first)).days
        return day.year, day.month, day.isoweekday(), hours_of(day), days
    find = levels_of(column)
    found = find(cell) or find(OTHER)
    return tuple(float(at in found) for at in range(len(column.levels)))


def encoded(cells: Cells, column: TableColumn, votes: Counter[str]) -> Parts:
    """Return the inputs of a column, in its order; NaN where a mean is to be filled in."""
    if not column.inputs:
        return {}
    names, own, is_text = names_of(column), f"{column.name}={MISSING}", column.kind == "category"
    choice = cells.decimal(votes, column) if column.kind == "number" else ""
    if column.kind == "date":
        choice = cells.order(votes, column.order)
    if is_text:
        cells.refuse_several(column.levels, levels_of(column))
    found = [None if c is None else parts_of(c, column, choice) for _, c in cells.every]
    unseen = unseen_texts(cells.known, column) if is_text else set[str]()
    lost = [
        (row, cell)
        for (row, cell), parts in zip(cells.every, found, strict=True)
        if cell is not None and (parts is None or cell in unseen)
    ]
    if lost:
        marked = column.kind == "number" and column.unit in MARKS
        bare = [one for one in lost if marked and parse_number(one[1], choice) is not None]
        row, text = (bare or lost)[0]
        if bare or (not is_text and len(lost) > len(cells.known) / 2):
            unit = f" in {column.unit}" if column.unit else ""
            raise cells.refused(row, text, f"a {column.kind}{unit}, as in the training's table")
        kind = "unseen" if is_text else "no_number"
        cells.say(kind, count=len(lost), row=row, text=text[:40])
    cells.gone = [parts is None for parts in found]
    if any(cells.gone):
        cells.say("missing", count=sum(cells.gone))
    empty = (0.0 if is_text and own in column.inputs else math.nan,) * len(names)
    rows = [empty if parts is None else parts for parts in found]
    parts_by_name = {name: [float(row[at]) for row in rows] for at, name in enumerate(names)}
    if column.curve:
        parts_by_name[names[0]] = follow_curve(parts_by_name[names[0]], column.curve)
    parts_by_name[own] = [*map(float, cells.gone)]
    return {name: parts_by_name[name] for name in column.inputs}


def unit_factor(unit: str, other: str) -> float | None:
    """Return the factor from numbers of one unit to another; None where there is none.

    Case tells nothing ("KG") but in units of one letter and behind a prefix of two meanings ("Mg").
    """
    one, two = (
        name.lower() if len(name) > 1 and name[0] not in "MmPpYyZz" else name
        for name in (unit, other)
    )
    if one == two or ("" in (one, two) and not {one, two} & {*MARKS}):
        return 1.0
    known = [scale for scale in UNIT_SCALES if {one, two} <= scale.keys()]
    return known[0][one] / known[0][two] if known else None


def unit_conversion(unit: str, other: str) -> tuple[float, float] | None:
    """Return factor and shift from numbers of a unit to another; a unit of days is their first."""
    with suppress(ValueError):
        return 1.0, float((date.fromisoformat(unit) - date.fromisoformat(other)).days)
    factor = unit_factor(unit, other)
    return None if factor is None else (factor, 0.0)
