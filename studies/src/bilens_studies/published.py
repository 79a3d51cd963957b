"""Ours beside published: what a publication says, what was measured, and whether they agree."""

import csv
import io
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import mean, stdev
from typing import Any

from scipy.stats import t as student

MIN_RUNS = 3  # for an interval: two runs put t at 12.7, and their difference is no spread
RULE = (
    "An interval is the 95 % interval of a mean over independent runs, from three runs on. A "
    "number agrees within the tolerance that stands beside it, or within three of the published "
    "standard deviations; a claim in words agrees where it holds here. What was measured in fewer "
    "than three runs is not judged, be it a number or a claim; counts and identities, which one "
    "run decides, are."
)
NUMBERS = ("value", "deviation", "tolerance")
DEVIATIONS = 3  # published ones, within which a number is the same
AGREES, DIFFERS, OPEN = "agrees", "differs", "not measured"
UNJUDGED, UNJUDGED_QUICK = "not judged", "not judged: --quick"  # but measured


@dataclass(frozen=True)
class Published:
    """One quantity as it is published: a number, or a claim in words."""

    quantity: str
    source: str  # where it stands: "App. E, text"
    value: float | None = None
    claim: str = ""  # where there is no number
    deviation: float | None = None  # standard deviation between its runs
    tolerance: float | None = None  # what counts as the same, where no deviation is published
    others: str = ""  # what later reproductions report
    flaw: str = ""  # of the published protocol, and what is done instead


@dataclass(frozen=True)
class Reproduced:
    """The same quantity here, a value a run; of a claim, whether it holds."""

    values: tuple[float, ...] = ()
    holds: bool | None = None
    note: str = ""
    once: bool = False  # whether one run decides the claim: an identity, a count
    runs: int | None = None  # how many there were, where not all of them have a value


def read_published(table: str, constants: Mapping[str, Any]) -> dict[str, Published]:
    """Return the rows of a table in CSV by name; its texts may show constants.

    A tolerance may be a part of the value: "10%".
    """
    found = {}
    for row in csv.DictReader(io.StringIO(table)):
        cells: dict[str, Any] = {key: x.format_map(constants) for key, x in row.items() if x}
        numbers = {key: json.loads(cells[key].rstrip("%")) for key in NUMBERS if key in cells}
        if cells.get("tolerance", "").endswith("%"):
            numbers["tolerance"] = numbers["tolerance"] / 100 * numbers["value"]
        name = cells.pop("name")
        found[name] = Published(**{**cells, **numbers})
    return found


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over independent runs (Student); None of too few."""
    if len(values) < MIN_RUNS:
        return None
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def rising(values: Sequence[float | None], where: str) -> Reproduced:
    """Return whether the values of one run rise from each to the next; open if one is missing."""
    known = [value for value in values if value is not None]
    told = ", ".join(map(number, values))
    holds = all(a < b for a, b in pairwise(known)) if len(known) == len(values) else None
    return Reproduced(holds=holds, note=f"{told} ({where})", runs=1)


def finding(published: Published, measured: Reproduced, quick: bool = False) -> dict[str, Any]:
    """Return one row: published, ours, and whether they agree.

    Not judged are the small models of --quick, and what was measured in too few runs.
    """
    ours = mean(measured.values) if measured.values else None
    low, high = interval(measured.values) or (None, None)
    holds = measured.holds
    if holds is None and ours is not None and published.value is not None:
        allowed = published.tolerance or 0.0
        if published.deviation is not None:
            allowed = DEVIATIONS * published.deviation
        holds = abs(ours - published.value) <= allowed
    runs = len(measured.values) if measured.runs is None else measured.runs
    few = runs < MIN_RUNS and not measured.once
    if holds is None and not runs:
        verdict = OPEN
    elif quick:
        verdict = UNJUDGED_QUICK
    else:
        verdict = UNJUDGED if few or holds is None else AGREES if holds else DIFFERS
    found = {"ours": ours, "low": low, "high": high, "runs": runs, "values": measured.values}
    return {**vars(published), **found, "verdict": verdict, "note": measured.note}


def findings(
    published: Mapping[str, Published], measured: Mapping[str, Reproduced], quick: bool = False
) -> list[dict[str, Any]]:
    """Return the rows of a study; every name that was measured is a published one."""
    assert set(measured) <= set(published), "declared beside the study"
    return [
        finding(one, measured.get(name, Reproduced()), quick) for name, one in published.items()
    ]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
