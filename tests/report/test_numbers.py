"""Numbers for people.

Damage seen to fail: `signed` without the sign of a positive number.
"""

import math

import pytest
from hypothesis import given, strategies as st

from bilens.report import text as numbers
from bilens.report.sections.overview import compared_number

NO_BREAK = "\u00a0×\u00a0"


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (2.71e-7, f"2.8{NO_BREAK}10⁻⁷"),
        (-1.5e12, f"−1.5{NO_BREAK}10¹²"),
        (1.0, f"1.0{NO_BREAK}10⁰"),
        (0.0, "0"),
    ],
)
def test_powers_of_ten_are_written_as_such(value: float, expected: str) -> None:
    assert numbers.scientific(value) == expected


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        (0.973, "97.3%"),
        (0.0, "0.0%"),
        (1.0, "100.0%"),
        (0.1 + 0.2 + 0.7, "100.0%"),
        (0.0999, "10.0%"),
        (2999 / 3000, "99.9%"),
        (1 - 1e-9, "99.9%"),
        (1 / 3000, "<0.1%"),
        (1e-9, "<0.1%"),
    ],
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


def test_a_huge_number_has_no_decimals() -> None:
    value = -15434655699898.311
    assert numbers.fixed(value, 3) == f"−1.543{NO_BREAK}10¹³"
    assert numbers.fixed(value - 1e9, 3, -1) == f"−1.544{NO_BREAK}10¹³"
    assert numbers.fixed(123456789.25, 2) == "123,456,789.25"


@pytest.mark.parametrize(("value", "expected"), [(134400, "134,400"), (2.5, "2.5"), (-3, "−3")])
def test_whole_numbers_have_commas(value: float, expected: str) -> None:
    assert numbers.grouped(value) == expected


@pytest.mark.parametrize(
    ("values", "expected"),
    [([16.3, -2.0], 2), ([0.05, 0.01], 4), ([0.0], 2), ([], 2), ([1e-30], 8)],
)
def test_decimals_follow_the_largest_number(values: list[float], expected: int) -> None:
    assert numbers.decimals(values) == expected


@given(st.floats(-1e300, 1e300))
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


@given(st.integers(0, 10**9), st.integers(0, 10**3), st.integers(3, 5))
def test_a_compared_number_is_shown_on_its_side(billionths: int, limit: int, digits: int) -> None:
    """Of a limit of so many digits; plain rounding shows 0.8999 as no less than 0.9."""
    value, limit_shown = billionths / 1e9, limit / 1e3
    below, above = (float(numbers.fixed(value, digits, side)) for side in (-1, 1))
    assert below <= value <= above
    assert above - below <= 10**-digits * 1.001
    assert (below < limit_shown) == (value < limit_shown)
    assert (above > limit_shown) == (value > limit_shown)


@pytest.mark.parametrize(
    ("condition", "value", "shown"),
    [
        ("accuracy<0.95", 55 / 60, "0.9167"),  # as 91.7% elsewhere
        ("accuracy<0.9167", 55 / 60, "0.9166"),
        ("accuracy>=0.9", 0.899996, "0.8999"),
        ("leak>0.1", 0.100004, "0.1001"),
        ("leak>0.1", 0.3333333, "0.3333"),
        ("trigger", 0.3333333, "0.3334"),
        ("a later word <x", 0.25, "0.2500"),
    ],
)
def test_a_condition_has_the_number_that_stands_elsewhere(
    condition: str, value: float, shown: str
) -> None:
    assert compared_number(condition, value) == shown


@given(st.integers(0, 10**7), st.integers(0, 10**7), st.integers(0, 10**7))
def test_shares_read_add_up_and_none_is_read_that_was_not(a: int, b: int, rest: int) -> None:
    total = a + b + rest or 1
    shown = numbers.read_percents(a / total, b / total)
    shares = a / total, b / total, (a + b) / total, 1 - (a + b) / total
    for text, share in zip(shown.values(), shares, strict=True):
        assert (text == "0.0%", text == "100.0%") == (share < 1e-14, share > 1 - 1e-14)
    if any("<" in text for text in shown.values()):
        return
    exact, approximate, value, unread = (float(text[:-1]) for text in shown.values())
    assert exact + approximate == pytest.approx(value, abs=1e-6)
    assert value + unread == pytest.approx(100, abs=1e-6)
    assert value <= 100 * (a + b) / total + 1e-6
    assert (unread > 0) == (rest > 0 or a + b == 0)


def test_shares_of_a_whole_make_a_hundred() -> None:
    assert numbers.percents([1 / 3, 1 / 3, 1 / 3], 0) == ["34%", "33%", "33%"]
    assert numbers.percents([0.5545, 0.4455, 0.0]) == ["55.5%", "44.5%", "0.0%"]


@pytest.mark.parametrize("share", [1e-13, 1e-6, 4e-4, 0.3, 1 - 4e-4, 1 - 1e-6, 1 - 1e-13])
@pytest.mark.parametrize("digits", [0, 1, 2])
def test_some_is_shown_neither_as_nothing_nor_as_all(share: float, digits: int) -> None:
    ends = {f"{end:.{digits}f}%" for end in (0, 100)}
    shown = [numbers.percent(share, digits, toward) for toward in (-1, 0, 1)]
    shown += numbers.percents([share, 1 - share], digits)
    assert not ends & {*shown}
    floor, _, ceiling = shown[:3]
    assert ceiling.startswith("<") or float(ceiling[:-1]) >= 100 * share - 1e-9
    assert floor.startswith(">") or float(floor[:-1]) <= 100 * share + 1e-9
