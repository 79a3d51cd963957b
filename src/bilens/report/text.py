"""Texts for people: the sentences of a language, numbers, tokens, and names cut to their room."""

import json
import math
import re
import string
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cache, lru_cache, partial
from importlib.resources import files
from typing import Final

from bilens.base.errors import CheckpointError, UsageError
from bilens.records.base import displayable
from bilens.records.common import NullInterval
from bilens.records.mlp_trace import LatentReading
from bilens.records.view import Format

LANGUAGES: Final = ("en", "ja")
NONE = "—"  # what is not known
MINUS = "−"
TIMES = "\u00a0×\u00a0"  # spaces at which no line breaks
SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")
NUMBER = re.compile(rf"[+{MINUS}-]?\d+(?:[.,]\d+)*(?:{TIMES}10[⁻⁰¹²³⁴⁵⁶⁷⁸⁹]+)?%?")
MARKS = {"\n": "↵", "\r": "↵", "\t": "⇥"}  # white space of tokens
LONGEST_TOKEN = 18
EXACTLY = 1e-12  # of a percentage: sums of shares round
WIDE_FROM = 0x1100  # code points from here on are mostly as wide as high


class Plural(string.Formatter):
    """Fills in placeholders; `{count:layer|layers}` is the first word beside 1, else the second."""

    def format_field(self, value: object, format_spec: str) -> str:
        one, bar, more = format_spec.partition("|")
        return (one if str(value) == "1" else more) if bar else format(value, format_spec)


@dataclass(frozen=True, eq=False)
class Catalogue:
    """The sentences of one language, by key; placeholders stand in braces."""

    lang: str
    sentences: dict[str, str]

    def __call__(self, key: str, **values: object) -> str:
        """Return a sentence with its placeholders filled; the values are never read as patterns.

        Raises CheckpointError where there is none, as of a word in a document of a later release.
        """
        if key not in self.sentences:
            raise CheckpointError(
                f"there is no sentence for {key!r:.80}: show the document with the release of "
                "bilens that wrote it."
            )
        return Plural().vformat(self.sentences[key], (), values)

    def has(self, key: str) -> bool:
        return key in self.sentences

    def word(self, key: str, name: str) -> str:
        """Return the word for a name; the name itself where a later release brought it."""
        known = f"{key}.{name}"
        return self(known) if known in self.sentences else name

    def each(self, prefix: str, keys: Iterable[str], **values: object) -> list[str]:
        """Return several sentences whose keys begin alike."""
        return [self(f"{prefix}.{key}", **values) for key in keys]

    def listing(self, items: list[str]) -> str:
        """Return items as one text: a, b and c."""
        if len(items) < 2:
            return "".join(items)
        return self("list.last", rest=self("list.comma").join(items[:-1]), last=items[-1])


@cache
def load_catalogue(lang: str) -> Catalogue:
    """Return the catalogue of a language; an unknown one raises UsageError."""
    if lang not in LANGUAGES:
        raise UsageError(f"there is no report in {lang!r}: choose one of {', '.join(LANGUAGES)}.")
    text = files("bilens.report").joinpath("strings", f"{lang}.json").read_text("utf-8")
    return Catalogue(lang, json.loads(text))


def grouped(value: float) -> str:
    """Return a whole number with commas, and at most one decimal where it is not whole."""
    text = f"{value:,.0f}" if float(value).is_integer() else f"{value:,.1f}"
    return text.replace("-", MINUS)


LONG = 1e9


def fixed(value: float, digits: int = 2, toward: int = 0) -> str:
    """Return a number with a fixed number of decimals; never a negative zero.

    With `toward` 1 what is shown is never less, with −1 never more: so bounds are shown, and
    numbers that are compared, lest rounding hides on which side they are. Of what is larger than
    `LONG` the leading digits say all that decimals could.
    """
    if digits and abs(value) >= LONG:
        return quantity(value, 4, toward)
    if toward:
        value = toward * math.ceil(toward * value * 10**digits - 1e-9) / 10**digits
    text = f"{value:,.{digits}f}"
    return text.replace("-", MINUS) if float(text.replace(",", "")) != 0 else text.lstrip("-")


def r_squared(value: float | None, toward: int = 0) -> str:
    """Return R² with three decimals; −∞ where a constant is missed."""
    return f"{MINUS}∞" if value is None else fixed(value, 3, toward)


def signed(value: float, digits: int = 2, toward: int = 0) -> str:
    """Return `fixed` with its sign, also where it is positive; zero has none."""
    text = fixed(value, digits, toward)
    shown_as_zero = not any(digit in text for digit in "123456789")
    return text if text.startswith(MINUS) or shown_as_zero else f"+{text}"


def decimals(values: Iterable[float], significant: int = 3) -> int:
    """Return how many decimals show the largest of some numbers with so many digits, 2 to 8."""
    largest = max((abs(value) for value in values), default=0.0)
    if largest == 0:
        return 2
    return min(max(significant - 1 - math.floor(math.log10(largest)), 2), 8)


def percent(share: float, digits: int = 1, toward: int = 0) -> str:
    """Return a share of one as a percentage, 0.973 as 97.3%."""
    return percent_text(fixed(100 * share, digits, toward), 100 * share, digits, toward)


def percent_text(text: str, value: float, digits: int, toward: int = 0) -> str:
    """Return a rounded percentage; what is not all is not shown as all, nor some as nothing."""
    unit = 10.0**-digits
    if text == fixed(0, digits) and value > EXACTLY:
        return ">0%" if toward < 0 else f"<{fixed(unit, digits)}%"
    if text == fixed(100, digits) and value < 100 - EXACTLY:
        return "<100%" if toward > 0 else f"{fixed(100 - unit, digits)}%"
    return f"{text}%"


def read_percents(exact: float, approximate: float) -> dict[str, str]:
    """Return the shares of a model read exactly and approximately, their sum and the rest.

    They add up, and none is read that was not: the sum is never more than it is.
    """
    every = math.floor(1000 * (exact + approximate) + 1e-9) / 10
    sure = math.floor(1000 * exact + 1e-9) / 10 if approximate else every
    parts = {"exact": sure, "approximate": every - sure, "value": every, "unread": 100 - every}
    whole = {"exact": exact, "approximate": approximate, "value": exact + approximate}
    whole["unread"] = 1 - whole["value"]
    return {key: percent_text(fixed(one, 1), 100 * whole[key], 1) for key, one in parts.items()}


def adding_up(values: Sequence[float], digits: int) -> list[float]:
    """Return values rounded so that their sum is the rounded sum (largest remainders)."""
    unit = 10.0**-digits
    floors = [math.floor(value / unit) for value in values]
    missing = round(math.fsum(values) / unit) - sum(floors)
    order = sorted(range(len(values)), key=lambda each: floors[each] - values[each] / unit)
    for each in order[: max(missing, 0)]:
        floors[each] += 1
    return [floor * unit for floor in floors]


def percents(shares: Sequence[float], digits: int = 1) -> list[str]:
    """Return shares of a whole as percentages that add up to that of their sum."""
    values = [100 * one for one in shares]
    rounded = zip(adding_up(values, digits), values, strict=True)
    return [percent_text(fixed(each, digits), value, digits) for each, value in rounded]


def per_mille(share: float, toward: int = 0) -> str:
    """Return a share of one as how many of 1,000."""
    return "< 1" if share < 0.001 else fixed(1000 * share, 1, toward)


def points(share: float, toward: int = 0) -> str:
    """Return a share of one in percentage points, without a sign for them."""
    return fixed(100 * share, 1, toward)


def scientific(value: float, digits: int = 1) -> str:
    """Return an error as 2.7 × 10⁻⁷; what is shown is never less. Zero is 0."""
    return power(up(value, digits + 1), digits)


def power(value: float, digits: int) -> str:
    if value == 0:
        return "0"
    mantissa, exponent = f"{value:.{digits}e}".split("e")
    power = str(int(exponent)).translate(SUPERSCRIPTS)
    return f"{mantissa.replace('-', MINUS)}{TIMES}10{power}"


def quantity(value: float, significant: int = 3, toward: int = 0) -> str:
    """Return a number with so many significant digits, as a power of ten where it is extreme."""
    value = toward * up(toward * value, significant) if toward else value
    if value == 0:
        return "0"
    magnitude = math.floor(math.log10(abs(value)))
    if not -4 < magnitude < 6:
        return power(value, significant - 1)
    return fixed(value, max(significant - 1 - magnitude, 0))


def signed_quantity(value: float, significant: int = 3) -> str:
    """Return `quantity` with its sign, also where it is positive."""
    text = quantity(value, significant)
    return f"+{text}" if value > 0 else text


def up(value: float, significant: int) -> float:
    """Return the smallest number of so many significant digits that is not below a value."""
    if value == 0:
        return 0.0
    shift = significant - 1 - math.floor(math.log10(abs(value)))
    rounded = round(value, shift)
    return rounded if rounded >= value else round(rounded + 10.0**-shift, shift)


def raised(value: float, significant: int = 3) -> str:
    """Return a number that is proven from above: what is shown is never less."""
    return quantity(value, significant, 1)


def floored(value: float, significant: int = 3) -> str:
    """Return a number that is proven from below: what is shown is never more."""
    return quantity(value, significant, -1)


def visible(text: str) -> str:
    """Return a text whose line breaks and tabs can be seen, and that can be shown anywhere."""
    return displayable(text, MARKS)


def token_name(text: str) -> str:
    """Return a token as a word that stands alone: without the space before it, never empty."""
    return shortened(visible(text).strip(" ") or "␣", LONGEST_TOKEN)


def latent_name(item: LatentReading) -> str:
    """Return the number of a latent, and the token at which it is strongest most often."""
    peaks = Counter(token_name(context.tokens[context.peak]) for context in item.contexts)
    return " ".join([str(item.latent), *(name for name, _ in peaks.most_common(1))])


def shortened(text: str, length: int) -> str:
    """Return a text cut to a length in its middle, as names often begin alike.

    A number with a sign, decimals or a power of ten is kept or left out whole: a part of it would
    be another number.
    """
    if len(text) <= length:
        return text
    gone, numbers = len(text) - length + 1, [one.span() for one in NUMBER.finditer(text)]

    def cuts_a_number(start: int) -> bool:
        return any(a < at < b for a, b in numbers for at in (start, start + gone))

    middle = length // 2
    start = min(range(max(length, 1)), key=lambda at: (cuts_a_number(at), abs(at - middle)))
    return f"{text[:start]}…{text[start + gone :]}"


@lru_cache(16)
def distinct_names(names: tuple[str, ...], length: int) -> tuple[str, ...]:
    """Return names cut to a length, each told from the others; "" for a name of spaces alone.

    Those that look alike when they are cut are shown whole; those that do so even then with their
    spaces marked, and if that does not tell them apart, with their numbers.
    """
    whole = [" ".join(name.split()) for name in names]
    marked = ["".join("␣" if each.isspace() else each for each in visible(name)) for name in names]
    numbered = [f"{name} (#{index})" for index, name in enumerate(whole)]
    shown = [shortened(name, length) for name in whole]
    for longer in (whole, marked, numbered):
        seen = ["".join(filter(str.isprintable, name)) for name in shown]
        alike = {text for text, count in Counter(seen).items() if text and count > 1}
        shown = [longer[at] if seen[at] in alike else name for at, name in enumerate(shown)]
    return tuple(shown)


def text_width(text: str, size: float) -> float:
    """Return about how wide a text is drawn; fonts differ, so leave some room."""
    return size * sum(1.0 if ord(each) >= WIDE_FROM or each == "%" else 0.62 for each in text)


def fitted(text: str, size: float, width: float) -> str:
    """Return a text cut so that it fits into a width."""
    length = len(text)
    while length > 1 and text_width(shortened(text, length), size) > width:
        length -= 1
    return shortened(text, length)


def tick_text(value: float) -> str:
    """Return the number of a tick, without the zeros at its end."""
    digits = f"{abs(value):.11e}".partition("e")[0].replace(".", "").rstrip("0")
    text = quantity(value, max(3, len(digits)))  # ticks are round numbers: all of their digits
    return text.rstrip("0").rstrip(".") if "." in text and "×" not in text else text


def relative(value: float) -> str:
    """Return a change as a part of what changed, in percent with three digits."""
    return f"{quantity(100 * value, 3)}%"


def interval(value: NullInterval) -> str:
    return f"{fixed(value.low, 1)}–{fixed(value.high, 1)}"


def usual(value: NullInterval) -> str:
    """Return a null interval behind its median."""
    return f"{fixed(value.median, 1)} ({interval(value)})"


FORMATS: Final[dict[Format, Callable[..., str]]] = {
    "text": str,
    "count": grouped,
    "whole": grouped,
    "number or name": grouped,
    "cell": grouped,
    "percent": percent,
    "per_mille": per_mille,
    "share": partial(percent, digits=0),
    "relative": relative,
    "points": points,
    "fixed1": partial(fixed, digits=1),
    "fixed2": fixed,
    "fixed3": partial(fixed, digits=3),
    "fixed5": partial(fixed, digits=5),
    "cosine": partial(fixed, digits=5, toward=-1),
    "r_squared": r_squared,
    "quantity": quantity,
    "signed": signed_quantity,
    "scientific": scientific,
    "interval": interval,
    "usual": usual,
}
