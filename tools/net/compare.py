"""Compares two recordings case by case."""

from __future__ import annotations

import difflib
import json
import math
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

RELATIVE, ABSOLUTE = 1e-6, 1e-9
SHOWN = 6  # differences of one case
WIDTH = 160
PARTS = re.compile(
    r"[-−]?\d[\d,]*(?:\.\d+)?(?:[eE][-+]?\d+)?"  # a number
    r"|[^\W\d]\w*"  # a word
    r"|[^\w\s]|\w"  # a sign
)
WHOLE = re.compile(r"[-−]?\d[\d,]*")
LETTER = re.compile(r"\w", re.ASCII)  # of a script with spaces between words
KEY_PATH = re.compile(r"\w+(\[\])?(\.\w+(\[\])?)+")


@dataclass(frozen=True)
class Renames:
    """What has another name in the second recording."""

    words: list[tuple[re.Pattern[str], str]]
    keys: list[tuple[tuple[str, ...], str]]


def read_renames(path: Path | None) -> Renames:
    """The table old<TAB>new; empty lines and lines that start with # are left out.

    A name with points, as in `circuits[].place`, is a key inside others and no word of a text.
    """
    renames = Renames([], [])
    for line in [] if path is None else path.read_text("utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        old, new = line.split("\t")
        if KEY_PATH.fullmatch(old):
            names = tuple(old.replace("[]", "").split("."))
            renames.keys.append((names, new.replace("[]", "").split(".")[-1]))
        else:
            start = r"(?<!\w)" if LETTER.match(old[0]) else ""
            end = r"(?!\w)" if LETTER.match(old[-1]) else ""
            renames.words.append((re.compile(start + re.escape(old) + end), new))
    return renames


def renamed(value: Any, renames: Renames, place: tuple[str, ...] = ()) -> Any:
    """The value with new words in keys and texts."""
    if isinstance(value, str):
        for pattern, new in renames.words:
            value = pattern.sub(new.replace("\\", r"\\"), value)
        return value
    if isinstance(value, dict):
        return {
            renamed_key(key, renames, (*place, key)): renamed(item, renames, (*place, key))
            for key, item in value.items()
        }
    if isinstance(value, list):
        return [renamed(item, renames, place) for item in value]
    return value


def renamed_key(key: str, renames: Renames, place: tuple[str, ...]) -> str:
    """The new name of a key; `place` ends with the old one."""
    for names, new in renames.keys:
        if place[-len(names) :] == names:
            return new
    new_key: str = renamed(key, renames)
    return new_key


def same_number(first: float, second: float) -> bool:
    """Whether two numbers differ by rounding at most."""
    return math.isclose(first, second, rel_tol=RELATIVE, abs_tol=ABSOLUTE)


def same_text(first: str, second: str) -> bool:
    """Equal words and signs; whole numbers exactly, others within rounding."""
    if first == second:
        return True
    ours, theirs = PARTS.findall(first), PARTS.findall(second)
    return len(ours) == len(theirs) and all(map(same_part, ours, theirs))


def same_part(first: str, second: str) -> bool:
    """The same for one part of a text."""
    if first == second:
        return True
    if WHOLE.fullmatch(first) and WHOLE.fullmatch(second):
        return False
    try:
        numbers = [float(part.replace(",", "").replace("−", "-")) for part in (first, second)]
    except ValueError:
        return False
    return same_number(*numbers)


def differences(first: Any, second: Any, place: str = "") -> Iterator[str]:
    """A line for each place where two documents differ."""
    if isinstance(first, dict) and isinstance(second, dict):
        for key in [*first, *(key for key in second if key not in first)]:
            inside = f"{place}/{key}"
            if key not in second:
                yield f"{inside}: only in A: {short(first[key])}"
            elif key not in first:
                yield f"{inside}: only in B: {short(second[key])}"
            else:
                yield from differences(first[key], second[key], inside)
    elif is_text_list(first) and is_text_list(second):
        yield from line_differences(first, second, place)
    elif isinstance(first, list) and isinstance(second, list):
        if len(first) != len(second):
            yield f"{place}: {len(first)} items in A, {len(second)} in B"
        for index, (one, other) in enumerate(zip(first, second, strict=False)):
            yield from differences(one, other, f"{place}/{index}")
    elif isinstance(first, str) and isinstance(second, str):
        yield from text_differences(first, second, place)
    elif type(first) is not type(second) or not (
        same_number(first, second) if isinstance(first, float) else first == second
    ):
        yield f"{place}: {short(first)} → {short(second)}"


def is_text_list(value: Any) -> bool:
    """Whether it is a list of texts, as the lines of a page are."""
    return isinstance(value, list) and bool(value) and all(isinstance(x, str) for x in value)


def line_differences(first: list[str], second: list[str], place: str) -> Iterator[str]:
    """Lines that one list has and the other has not, where they belong."""
    matcher = difflib.SequenceMatcher(None, first, second, autojunk=False)
    for kind, low, high, start, end in matcher.get_opcodes():
        if kind == "equal":
            continue
        ours, theirs = first[low:high], second[start:end]
        if len(ours) != len(theirs) or not all(map(same_text, ours, theirs)):
            parts = [f"      {n} {short(' | '.join(x))}" for n, x in (("A", ours), ("B", theirs))]
            yield "\n".join([f"{place} line {low + 1}:", *parts])


def text_differences(first: str, second: str, place: str) -> Iterator[str]:
    """The lines of a text that differ."""
    if same_text(first, second):
        return
    ours, theirs = first.splitlines(), second.splitlines()
    if len(ours) != len(theirs):
        yield f"{place}: {len(ours)} lines in A, {len(theirs)} in B"
    for number, (one, other) in enumerate(zip(ours, theirs, strict=False), 1):
        if not same_text(one, other):
            yield f"{place} line {number}:\n      A {short(one)}\n      B {short(other)}"
            return
    longer = "A" if len(ours) > len(theirs) else "B"
    rest = max(ours, theirs, key=len)[min(len(ours), len(theirs)) :]
    yield f"{place}: {longer} goes on: {short(rest[0] if rest else '')}"


def print_keys(found: list[str]) -> None:
    """Keys that one recording alone has: what a table of renames has to hold."""
    for side in "AB":
        pattern = re.compile(rf"/([^/]+): only in {side}:")
        keys = sorted({match[1] for line in found if (match := pattern.search(line))})
        if keys:
            print(f"Keys only in {side}: {', '.join(keys)}")


def short(value: Any) -> str:
    """A value on one line."""
    text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
    return text if len(text) <= WIDTH else f"{text[:WIDTH]}…"


def compare(first: Path, second: Path, renames: Path | None = None, partial: bool = False) -> int:
    """Print the differences of two recordings; 1 if there are any, 2 if one is no recording."""
    table = read_renames(renames)
    recordings = [
        {path.stem: json.loads(path.read_text("utf-8")) for path in sorted((f / "cases").glob("*"))}
        for f in (first, second)
    ]
    for folder, cases in zip((first, second), recordings, strict=True):
        if not cases:
            print(f"{folder} holds no recording")
            return 2
    old = {renamed(name, table): renamed(case, table) for name, case in recordings[0].items()}
    new = recordings[1]
    equal, everything = 0, list[str]()
    names = sorted({*old} & {*new} if partial else {*old, *new})
    for name in names:
        if name not in old or name not in new:
            print(f"{name}: only in {'A' if name in old else 'B'}")
            continue
        found = list(differences(old[name], new[name]))
        if not found:
            equal += 1
            continue
        everything += found
        print(f"{name}: {len(found)} differences")
        for line in found[:SHOWN]:
            print(f"    {line}")
    print_keys(everything)
    print(f"{len(names)} cases, {equal} equal, {len(names) - equal} differing")
    return int(equal < len(names))
