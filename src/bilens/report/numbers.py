"""Numbers for people: percentages, signs, powers of ten. The same in every language."""

from __future__ import annotations

import math
from collections.abc import Iterable

MINUS = "−"
TIMES = "\u00a0×\u00a0"  # spaces at which no line breaks
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def whole(value: float) -> str:
    """Return a whole number with commas, and at most one decimal where it is not whole."""
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    return text.replace("-", MINUS)


def fixed(value: float, digits: int = 2) -> str:
    """Return a number with a fixed number of decimals; never a negative zero."""
    text = f"{value:,.{digits}f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) != 0 else text.lstrip("-")


def signed(value: float, digits: int = 2) -> str:
    """Return a number with its sign, also where it is positive; zero has none."""
    text = fixed(value, digits)
    return text if text.startswith(MINUS) or float(text.replace(",", "")) == 0 else f"+{text}"


def decimals(values: Iterable[float], significant: int = 3) -> int:
    """Return how many decimals show the largest of some numbers with so many digits, 2 to 8."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return 2
    return min(max(significant - 1 - math.floor(math.log10(largest)), 2), 8)


def percent(share: float, digits: int = 1) -> str:
    """Return a share of one as a percentage, 0.973 as 97.3%."""
    return f"{fixed(100 * share, digits)}%"


def scientific(value: float, digits: int = 1) -> str:
    """Return a number as 2.7 × 10⁻⁷; zero is 0."""
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    power = str(int(exponent)).translate(SUPERSCRIPTS)
    return f"{mantissa.replace('-', MINUS)}{TIMES}10{power}"


def quantity(value: float, significant: int = 3) -> str:
    """Return a number with so many significant digits, as a power of ten where it is extreme."""
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 < magnitude < 6:
        return scientific(value, significant - 1)
    return fixed(value, max(significant - 1 - magnitude, 0))


def signed_quantity(value: float, significant: int = 3) -> str:
    """Return `quantity` with its sign, also where it is positive."""
    text = quantity(value, significant)
    return f"+{text}" if value > 0 else text
