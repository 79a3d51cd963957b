"""Numbers for people.

Damage seen to fail: `signed` without the sign of a positive number.
"""

import math

import pytest
from hypothesis import given, strategies as st

from bilens.report import text as numbers

NO_BREAK = "\u00a0×\u00a0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2.74e-7, f"2.7{NO_BREAK}10⁻⁷"),
        (-1.5e12, f"−1.5{NO_BREAK}10¹²"),
        (1.0, f"1.0{NO_BREAK}10⁰"),
        (0.0, "0"),
    ],
)
def test_powers_of_ten_are_written_as_such(value: float, expected: str) -> None:
    assert numbers.scientific(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.973, "97.3%"), (0.0, "0.0%"), (1.0, "100.0%"), (0.0999, "10.0%")]
)
def test_a_share_is_a_percentage(value: float, expected: str) -> None:
    assert numbers.percent(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"), [(0.606, "+0.61"), (-0.82, "−0.82"), (0.001, "0.00"), (-0.001, "0.00")]
)
def test_a_sign_is_shown_unless_the_number_is_zero(value: float, expected: str) -> None:
    assert numbers.signed(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.0, "0"),
        (0.60602, "0.606"),
        (1.0043, "1.00"),
        (12345.6, "12,346"),
        (-0.001234, "−0.00123"),
        (1234567.0, f"1.23{NO_BREAK}10⁶"),
        (3.9e-15, f"3.90{NO_BREAK}10⁻¹⁵"),
    ],
)
def test_a_quantity_has_three_digits_that_count(value: float, expected: str) -> None:
    assert numbers.quantity(value) == expected


@pytest.mark.parametrize(("value", "expected"), [(134400, "134,400"), (2.5, "2.5"), (-3, "−3")])
def test_whole_numbers_have_commas(value: float, expected: str) -> None:
    assert numbers.whole(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([16.3, -2.0], 2), ([0.05, 0.01], 4), ([0.0], 2), ([], 2), ([1e-30], 8)],
)
def test_decimals_follow_the_largest_number(values: list[float], expected: int) -> None:
    assert numbers.decimals(values) == expected


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_can_be_shown(value: float) -> None:
    for show in (numbers.quantity, numbers.signed_quantity, numbers.scientific, numbers.signed):
        text = show(value)
        assert text
        assert "-" not in text, "the sign is a minus, not a hyphen"
        assert "nan" not in text


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=12), st.integers(0, 4))
def test_rounded_parts_add_up_to_the_rounded_sum(values: list[float], digits: int) -> None:
    rounded = numbers.adding_up(values, digits)
    unit = 10.0**-digits
    assert all(abs(a - b) <= unit * (1 + 1e-6) for a, b in zip(values, rounded, strict=True))
    assert sum(rounded) == pytest.approx(round(math.fsum(values) / unit) * unit, abs=unit / 10)


def test_shares_of_a_whole_make_a_hundred() -> None:
    assert numbers.percents([1 / 3, 1 / 3, 1 / 3], 0) == ["34%", "33%", "33%"]
    assert numbers.percents([0.5545, 0.4455, 0.0]) == ["55.5%", "44.5%", "0.0%"]
