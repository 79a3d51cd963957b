"""Cells as offices write them.

Damage seen to fail: the two decimal marks swapped; month and day swapped.
"""

from collections import Counter

import pytest

from bilens.data.cells import (
    decimal_mark,
    decimal_votes,
    is_missing,
    parse_date,
    parse_number,
)

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
]


@pytest.mark.parametrize(("cell", "decimal", "value", "unit"), NUMBERS)
def test_numbers(cell: str, decimal: str, value: float, unit: str) -> None:
    assert parse_number(cell, decimal) == (pytest.approx(value), unit)


@pytest.mark.parametrize(
    "cell", ["1_0", "٣", "1 0", "1,23", "12,34,5", "1.2.3", "--1", "-$-1", "$5€", "A1", "inf", "."]
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
    votes: Counter[str] = decimal_votes(others)
    assert decimal_mark(cells, votes, otherwise) == (mark, is_guess)


@pytest.mark.parametrize(
    ("cell", "day"),
    [
        ("2024-03-01", "2024-03-01"),
        ("2024/3/1", "2024-03-01"),
        ("01.03.2024", "2024-03-01"),
        ("2024年3月1日", "2024-03-01"),
        ("2024年3月1日(金)", "2024-03-01"),
        ("２０２４年３月１日", "2024-03-01"),
        ("2024-03-01 12:30:00", "2024-03-01"),
        ("2024-03-01T12:30:00.000Z", "2024-03-01"),
    ],
)
def test_dates(cell: str, day: str) -> None:
    assert str(parse_date(cell)) == day


@pytest.mark.parametrize(
    "cell", ["2024-13-01", "30.02.2024", "3/1/2024", "12", "2024", "1.5", "tomorrow"]
)
def test_no_dates(cell: str) -> None:
    assert parse_date(cell) is None


def test_what_says_that_there_is_no_value() -> None:
    assert all(map(is_missing, ["", "-", "N/A", "NA", "null", "?", "欠損", "#N/A", "—"]))
    assert not any(map(is_missing, ["0", "no", "なし", "-1", "nana"]))


def test_a_long_cell_takes_no_time() -> None:
    assert parse_number("1" * 200_000 + "x", ".") is None
