"""Cells as offices write them: numbers with marks and units, dates, and words for no value."""

import re
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import lru_cache
from random import Random

LARGEST = 1e100  # of a number: the square of one beyond 1e154 is none in float64
NEARLY_ALL = 0.9  # of the values of a column of numbers or dates; the few others are no values
LONGEST = 400  # letters of a number; the patterns take time that grows with their square
VOTERS = 5000  # cells that vote on how a column is read, at most; drawn with the seed 0
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
NO_VALUE = (
    "- -- – — ― . .. … ? ?? na n/a n.a. nan null none nil k.a. #n/a #na #null! #div/0! #ref! "
    "#value! #name? #num! 欠損 欠損値 欠測 欠測値 未記入 未回答 無回答 データなし"
)
MISSING = frozenset({"", *NO_VALUE.split()})
# Letters of double width, spaces that do not break, and signs, as ASCII writes them.
PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans(
    "\u00a0\u2009\u202f\u3000−–‐‑△▲￥’", "    ------¥'"
)
CURRENCY = r"¥|€|\$|£|₹|₩|Rs\.?|USD|EUR|JPY|GBP|CHF|INR|CNY|kr|円|元"
UNIT = (
    rf"%|‰|{CURRENCY}|[千万億]円|百万円|mg|kg|g|t|km|cm|mm|m²|m2|㎡|m|ml|l|kWh|°C|℃|h|min|歳|才|年|"
    "か月|ヶ月|日|時間|分|秒|人|名|個|件|台|枚|点|回|本|pcs|Stück"
)
SHAPE = re.compile(
    rf"(?P<sign>[-+(]?)\s*(?P<before>{CURRENCY})?\s*(?P<inner>[-+]?)(?P<body>[\d.,' ]*\d[\d.,']*)"
    rf"(?P<power>e[-+]?\d+)?(?P<behind>-?)\s*(?P<after>{UNIT})?(?P<end>[-)]?)",
    re.ASCII | re.IGNORECASE,
)
BODY = {  # digits, in groups of three or not, and decimals
    ".": re.compile(  # 12,34,567, too, as in India
        r"(\d+|[1-9]\d{0,2}(?:([,' ])\d{3})(?:\2\d{3})*|[1-9]\d?(?:,\d\d)+,\d{3})?(?:\.\d*)?",
        re.ASCII,
    ),
    ",": re.compile(r"(\d+|[1-9]\d{0,2}(?:([.' ])\d{3})(?:\2\d{3})*)?(?:,\d*)?", re.ASCII),
}
TIME = (  # after the day of the week
    r"(?:\s*\(.{1,3}\))?(?:[T ]\s*(?P<hour>\d{1,2})[:時](?P<minute>\d{2})(?::(?P<second>\d{2})"
    r"(?:[.,]\d+)?)?分?\s*(?:(?P<half>[AaPp])\.?[Mm]\.?)?\s*(?:Z|UTC|[+-]\d{2}:?(?:\d{2})?)?)?"
)
ERAS = {"令和": 2018, "平成": 1988, "昭和": 1925, "大正": 1911, "明治": 1867}  # the year before
ERAS |= zip("RHSTM", [*ERAS.values()], strict=True)
DAYS = (
    r"(?P<y>\d{4})([-/.])(?P<m>\d{1,2})\2(?P<d>\d{1,2})",
    r"(?P<y>(?:19|20)\d{2})[-/](?P<m>\d{1,2})",
    r"(?P<m>\d{1,2})/(?P<y>(?:19|20)\d{2})",
    r"(?P<d>\d{1,2})\.(?P<m>\d{1,2})\.(?P<y>\d{4})",
    r"(?P<y>(?:19|20)\d{2})(?P<m>\d{2})(?P<d>\d{2})",
    rf"(?:(?P<y>\d{{4}})|(?P<era>{'|'.join(ERAS)})(?P<of>\d{{1,2}}|元))[年./](?P<m>\d{{1,2}})"
    r"(?:月|[月./](?P<d>\d{1,2})日?)",
)
DATES = {  # by what stands first in 3/1/2024
    "day": (*DAYS, r"(?P<d>\d{1,2})([-/])(?P<m>\d{1,2})\2(?P<y>\d{4})"),
    "month": (*DAYS, r"(?P<m>\d{1,2})([-/])(?P<d>\d{1,2})\2(?P<y>\d{4})"),
}


def plain_number(cell: str) -> float | None:
    """Return a number in ASCII digits; Python itself would read "1_0", "٣" and "infinity" too."""
    return float(cell) if len(cell) <= LONGEST and NUMBER.fullmatch(cell) else None


def is_missing(cell: str) -> bool:
    """Tell whether a cell says that there is no value."""
    return cell.lower() in MISSING


def is_nearly_all(parsed: Sequence[object]) -> bool:
    fits = sum(one is not None for one in parsed)
    return fits > 0 and fits >= NEARLY_ALL * len(parsed)


@lru_cache(1 << 16)
def parse_number(cell: str, decimal: str) -> tuple[float, str] | None:
    """Return a number and its unit, with the mark that stands before decimals; hours of a time."""
    if decimal == "." and (plain := plain_number(cell)) is not None:  # most cells of most tables
        return (plain, "") if abs(plain) <= LARGEST else None
    text = cell.translate(PLAIN).strip()
    if ":" in text and (clock := parse_date(f"2000-01-01T{text}")) is not None:
        return hours_of(clock), "h"
    found = None if len(text) > LONGEST else SHAPE.fullmatch(text)
    if found is None or not BODY[decimal].fullmatch(found["body"]):
        return None
    sign = found["sign"] + found["inner"] + found["behind"] + found["end"]
    if sign not in ("", "+", "-", "()") or (found["before"] and found["after"]):
        return None
    digits = "".join(mark for mark in found["body"] if mark.isdigit() or mark == decimal)
    value = float(digits.replace(",", ".") + (found["power"] or ""))
    unit = found["before"] or found["after"] or ""
    return (-value if sign in ("-", "()") else value, unit) if value <= LARGEST else None


@lru_cache(1 << 16)
def parse_date(cell: str, order: str = "day") -> datetime | None:
    """Return the day and the time that a cell names, as a clock on the wall shows it."""
    text = cell.translate(PLAIN).strip()
    tried = (re.fullmatch(form + TIME, text, re.ASCII) for form in DATES[order])
    found = next(filter(None, tried), None)
    if found is None:
        return None
    part = found.groupdict()
    year = part["y"] or ERAS[part["era"]] + int(part["of"].replace("元", "1"))
    hour = int(part["hour"] or 0)
    if part["half"]:
        hour = hour % 12 + 12 * (part["half"] in "Pp")
    clock = (hour, int(part["minute"] or 0), int(part["second"] or 0))
    try:
        return datetime(int(year), int(part["m"]), int(part.get("d") or 1), *clock)
    except ValueError:
        return None


def hours_of(time: datetime) -> float:
    return time.hour + time.minute / 60 + time.second / 3600


@dataclass(frozen=True)
class Question:
    """Two ways to read a cell, as 1,234 or 3/1/2024 have; the cells of a column decide together."""

    kind: str  # of the conversion that tells a guess
    choices: tuple[str, str]
    marks: str  # without one of them a cell does not differ
    parse: Callable[[str, str], tuple[float, str] | datetime | None]

    def votes(self, cells: Iterable[str]) -> Counter[str]:
        """Return how many cells can only be read in the one way, or in the other."""
        votes: Counter[str] = Counter()
        marked = [cell for cell in cells if any(mark in cell for mark in self.marks)]
        draw = Random(0)  # noqa: S311 - no secret
        for cell in draw.sample(marked, min(VOTERS, len(marked))):
            votes.update(self.sure(cell))
        return votes

    def sure(self, cell: str) -> list[str]:
        """Return the only way in which a cell can be read, if there is one."""
        fits = [choice for choice in self.choices if self.parse(cell, choice) is not None]
        return fits if len(fits) == 1 else []

    def is_open(self, cell: str) -> bool:
        """Tell whether a cell says something else in the other way, as 1,234 and 3/1/2024 do."""
        first, second = self.choices
        return any(mark in cell for mark in self.marks) and (
            self.parse(cell, first) != self.parse(cell, second)
        )

    def decide(self, cells: Sequence[str], votes: Counter[str], otherwise: str) -> tuple[str, bool]:
        """Return how a column is read, by its cells or the table, and whether it is a guess."""
        (first, second), own = self.choices, self.votes(cells)
        if own[first] != own[second]:
            return max(self.choices, key=lambda choice: own[choice]), False
        differ = any(map(self.is_open, cells))
        if votes[first] != votes[second]:
            is_guess = differ and min(votes[first], votes[second]) > 0
            return max(self.choices, key=lambda choice: votes[choice]), is_guess
        return (otherwise if differ else first), differ


DECIMAL = Question("mark_guess", (".", ","), ",.，．", parse_number)
ORDER = Question("date_guess", ("day", "month"), "-/－／−–", parse_date)
