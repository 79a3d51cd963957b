"""Cells as offices write them.

Damage seen to fail: the two decimal marks swapped; month and day swapped; no vote on their order;
a sign behind a number dropped.
"""

from collections import Counter

import pytest

from bilens.data.cells import DECIMAL, ORDER, is_missing, parse_date, parse_number

NUMBERS = [
    ("1234.5", ".", 1234.5, ""),
    ("1,234.5", ".", 1234.5, ""),
    ("1.234,5", ",", 1234.5, ""),
    ("1 234,5", ",", 1234.5, ""),
    ("1\u00a0234,50 €", ",", 1234.5, "€"),
    ("1'234.5", ".", 1234.5, ""),
    ("1,234,567", ".", 1234567, ""),
    ("-0,5", ",", -0.5, ""),
    ("−3.5", ".", -3.5, ""),
    ("△1,200", ".", -1200, ""),
    ("(1,200)", ".", -1200, ""),
    ("１２，３４５", ".", 12345, ""),
    ("¥12,000", ".", 12000, "¥"),
    ("12,000円", ".", 12000, "円"),
    ("$ -4.50", ".", -4.5, "$"),
    ("12.5%", ".", 12.5, "%"),
    ("３５％", ".", 35, "%"),
    ("1.5e3", ".", 1500, ""),
    (".5", ".", 0.5, ""),
    ("7 kg", ".", 7, "kg"),
    ("–2", ".", -2, ""),
    ("−2", ",", -2, ""),
    ("5-", ".", -5, ""),
    ("1.234,50-", ",", -1234.5, ""),
    ("1.234,50- €", ",", -1234.5, "€"),
    ("1,23,456", ".", 123456, ""),
    ("₹ 12,34,567.50", ".", 1234567.5, "₹"),
    ("Rs. 500", ".", 500, "Rs."),
    ("€ 5", ".", 5, "€"),
    ("12 %", ".", 12, "%"),
]


@pytest.mark.parametrize(("cell", "decimal", "value", "unit"), NUMBERS)
def test_numbers(cell: str, decimal: str, value: float, unit: str) -> None:
    assert parse_number(cell, decimal) == (pytest.approx(value), unit)


@pytest.mark.parametrize(
    "cell",
    [
        "1_0",
        "٣",
        "1 0",
        "1,23",
        "12,34,5",
        "123,45,678",
        "1.2.3",
        "--1",
        "-5-",
        "(5-",
        "(5",
        "5)",
        "5--",
        "-$-1",
        "$5€",
        "A1",
        "inf",
        ".",
    ],
)
def test_no_numbers(cell: str) -> None:
    assert parse_number(cell, ".") is None


@pytest.mark.parametrize(
    ("cells", "others", "otherwise", "mark", "is_guess"),
    [
        (["1,5", "2"], [], ".", ",", False),
        (["1,234.5", "1,234"], [], ",", ".", False),
        (["1,234"], ["0,5"], ".", ",", False),
        (["1.234"], ["0,5"], ".", ",", False),
        (["1,234"], ["0.5"], ",", ".", False),
        (["7.394", "450"], ["-0,482"], ".", ",", False),
        (["0,125", "0,250", "1,500"], [], ".", ",", False),
        (["0.125", "1.500"], [], ",", ".", False),
        (["1,234"], ["0.5", "1.5", "0,5"], ",", ".", True),
        (["1,234"], [], ",", ",", True),
        (["1,234", "950"], [], ".", ".", True),
        (["1.234", "950"], [], ",", ",", True),
        (["12", "7"], [], ",", ".", False),
    ],
)
def test_the_mark_before_decimals(
    cells: list[str], others: list[str], otherwise: str, mark: str, is_guess: bool
) -> None:
    votes: Counter[str] = DECIMAL.votes(others)
    assert DECIMAL.decide(cells, votes, otherwise) == (mark, is_guess)


@pytest.mark.parametrize(
    ("cells", "others", "otherwise", "order", "is_guess"),
    [
        (["1/5/2024", "1/13/2024"], [], "day", "month", False),
        (["01-05-2024", "13-05-2024"], [], "month", "day", False),
        (["1/5/2024"], ["5/31/2024"], "day", "month", False),
        (["1/5/2024"], ["5/31/2024", "3/31/2024", "31/3/2024"], "day", "month", True),
        (["1/5/2024", "5/5/2024"], [], "month", "month", True),
        (["2024-01-05", "01.05.2024", "5/5/2024"], [], "month", "day", False),
    ],
)
def test_what_stands_first_in_a_date(
    cells: list[str], others: list[str], otherwise: str, order: str, is_guess: bool
) -> None:
    assert ORDER.decide(cells, ORDER.votes(others), otherwise) == (order, is_guess)


@pytest.mark.parametrize(
    ("cell", "day"),
    [
        ("2024-03-01", "2024-03-01"),
        ("2024/3/1", "2024-03-01"),
        ("01.03.2024", "2024-03-01"),
        ("2024年3月1日", "2024-03-01"),
        ("2024年3月1日(金)", "2024-03-01"),
        ("２０２４年３月１日", "2024-03-01"),
        ("2024-03-01 12:30:00", "2024-03-01 12:30:00"),
        ("2024-03-01T12:30:00.000Z", "2024-03-01 12:30:00"),
        ("2024-03-01 12:30:00+09:00", "2024-03-01 12:30:00"),
        ("2024/3/1 0:05", "2024-03-01 00:05:00"),
        ("1/3/2024 12:05 AM", "2024-03-01 00:05:00"),
        ("1/3/2024 3:45 p.m.", "2024-03-01 15:45:00"),
        ("2024年3月1日（金） 15時30分", "2024-03-01 15:30:00"),
        ("1/3/2024", "2024-03-01"),
        ("20240301", "2024-03-01"),
        ("2024-03", "2024-03-01"),
        ("03/2024", "2024-03-01"),
        ("2024年3月", "2024-03-01"),
        ("令和6年3月1日", "2024-03-01"),
        ("令和元年5月1日", "2019-05-01"),
        ("R6.3.1", "2024-03-01"),
        ("H31/4/30", "2019-04-30"),
        ("昭和64年1月7日", "1989-01-07"),
    ],
)
def test_dates(cell: str, day: str) -> None:
    assert str(parse_date(cell)).removesuffix(" 00:00:00") == day
    month_first = str(parse_date(cell, "month")).removesuffix(" 00:00:00")
    assert (month_first == day) != cell.startswith("1/3/")


@pytest.mark.parametrize(
    "cell",
    [
        "2024-13-01",
        "30.02.2024",
        "12",
        "2024",
        "1.5",
        "tomorrow",
        "4711-01",
        "20241301",
        "1.5.24",
        "2024-01-01 25:00",
        "R6-1-5-2",
        "X6.1.5",
        "31/4/2024",
    ],
)
def test_no_dates(cell: str) -> None:
    assert parse_date(cell) is None


def test_what_says_that_there_is_no_value() -> None:
    assert all(map(is_missing, ["", "-", "N/A", "NA", "null", "?", "欠損", "#N/A", "—"]))
    assert not any(map(is_missing, ["0", "no", "なし", "-1", "nana"]))


def test_a_long_cell_takes_no_time() -> None:
    assert parse_number("1" * 200_000 + "x", ".") is None
