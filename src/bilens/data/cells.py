"""Cells as offices write them: numbers with marks and units, dates, and words for no value."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from datetime import date
from functools import lru_cache
from itertools import islice

LARGEST = 1e100  # of a number: the square of one beyond 1e154 is none in float64
LONGEST = 400  # letters of a number; the patterns take time that grows with their square
VOTERS = 5000  # cells that vote on the mark before decimals, at most
NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
NO_VALUE = (
    "- -- – — ― . .. … ? ?? na n/a n.a. nan null none nil k.a. #n/a #na #null! #div/0! #ref! "
    "#value! #name? #num! 欠損 欠損値 欠測 欠測値 未記入 未回答 無回答 データなし"
)
MISSING = frozenset({"", *NO_VALUE.split()})
# Letters of double width, spaces that do not break, and signs, as ASCII writes them.
PLAIN = {code: code - 0xFEE0 for code in range(0xFF01, 0xFF5F)} | str.maketrans(
    "\u00a0\u2009\u202f\u3000−△▲￥’", "    ---¥'"
)
CURRENCY = r"¥|€|\$|£|USD|EUR|JPY|GBP|CHF|円"
UNIT = (
    rf"%|‰|{CURRENCY}|[千万億]円|百万円|mg|kg|g|t|km|cm|mm|m²|m2|㎡|m|ml|l|kWh|°C|℃|h|min|歳|才|年|"
    "か月|ヶ月|日|時間|分|秒|人|名|個|件|台|枚|点|回|本|pcs|Stück"
)
SHAPE = re.compile(
    rf"(?P<sign>[-+(]?)\s*(?P<before>{CURRENCY})?\s*(?P<inner>[-+]?)(?P<body>[\d.,' ]*\d[\d.,']*)"
    rf"(?P<power>e[-+]?\d+)?\s*(?P<after>{UNIT})?(?P<end>\)?)",
    re.ASCII | re.IGNORECASE,
)
BODY = {  # digits, in groups of three or not, and decimals
    ".": re.compile(r"(\d+|[1-9]\d{0,2}(?:([,' ])\d{3})(?:\2\d{3})*)?(?:\.\d*)?", re.ASCII),
    ",": re.compile(r"(\d+|[1-9]\d{0,2}(?:([.' ])\d{3})(?:\2\d{3})*)?(?:,\d*)?", re.ASCII),
}
TIME = r"(?:\s*\(.{1,3}\))?(?:[T ]\d{1,2}:\d{2}\S*)?"  # or the day of the week
DATES = (
    re.compile(rf"(?P<y>\d{{4}})([-/.])(?P<m>\d{{1,2}})\2(?P<d>\d{{1,2}}){TIME}", re.ASCII),
    re.compile(rf"(?P<d>\d{{1,2}})([.-])(?P<m>\d{{1,2}})\2(?P<y>\d{{4}}){TIME}", re.ASCII),
    re.compile(rf"(?P<y>\d{{4}})年(?P<m>\d{{1,2}})月(?P<d>\d{{1,2}})日{TIME}", re.ASCII),
)


def plain_number(cell: str) -> float | None:
    """Return a number in ASCII digits; Python itself would read "1_0", "٣" and "infinity" too."""
    return float(cell) if len(cell) <= LONGEST and NUMBER.fullmatch(cell) else None


def is_missing(cell: str) -> bool:
    """Tell whether a cell says that there is no value."""
    return cell.lower() in MISSING


@lru_cache(1 << 16)
def parse_number(cell: str, decimal: str) -> tuple[float, str] | None:
    """Return a number and its unit, with the mark that stands before decimals, "." or ","."""
    if decimal == "." and (plain := plain_number(cell)) is not None:  # most cells of most tables
        return (plain, "") if abs(plain) <= LARGEST else None
    text = cell.translate(PLAIN).strip()
    found = None if len(text) > LONGEST else SHAPE.fullmatch(text)
    if found is None or not BODY[decimal].fullmatch(found["body"]):
        return None
    sign = found["sign"] + found["inner"]  # (5) is −5, as in a balance sheet
    if len(sign) > 1 or (sign == "(") != bool(found["end"]) or (found["before"] and found["after"]):
        return None
    digits = "".join(mark for mark in found["body"] if mark.isdigit() or mark == decimal)
    value = float(digits.replace(",", ".") + (found["power"] or ""))
    unit = found["before"] or found["after"] or ""
    return (-value if sign in ("-", "(") and sign else value, unit) if value <= LARGEST else None


def decimal_votes(cells: Iterable[str]) -> Counter[str]:
    """Return how many cells can only be read with a point, or a comma, before decimals."""
    votes: Counter[str] = Counter()
    for cell in islice(cells, VOTERS):
        fits = [mark for mark in BODY if parse_number(cell, mark) is not None]
        votes.update(fits if len(fits) == 1 else ())
    return votes


def is_open(cell: str) -> bool:
    """Tell whether a cell is another number with the other mark, as 1,234 and 1.234 are."""
    return any(mark in cell for mark in ",.，．") and parse_number(cell, ".") != parse_number(
        cell, ","
    )


def decimal_mark(cells: Sequence[str], votes: Counter[str], otherwise: str) -> tuple[str, bool]:
    """Return what stands before the decimals of a column, and whether that is a guess.

    Its cells decide, then the whole table, where that is of one mind.
    """
    own = decimal_votes(cells)
    if own["."] != own[","]:
        return max(own, key=lambda mark: own[mark]), False
    differ = any(map(is_open, cells))
    if votes["."] != votes[","]:
        return max(votes, key=lambda mark: votes[mark]), differ and min(votes[m] for m in BODY) > 0
    return (otherwise if differ else "."), differ


def parse_date(cell: str) -> date | None:
    """Return the day that a cell names; 3/1/2024 names none, as countries differ."""
    text = cell.translate(PLAIN).strip()
    for pattern in DATES:
        if found := pattern.fullmatch(text):
            try:
                return date(int(found["y"]), int(found["m"]), int(found["d"]))
            except ValueError:
                return None
    return None
