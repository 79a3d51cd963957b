"""Ours beside published: what a publication says, what was measured, and whether they agree."""

import math
from collections.abc import Iterable, Mapping, Sequence
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
DEVIATIONS = 3  # published ones, within which a number is the same
ALLOWED = {"deviation": "published deviation", "tolerance": "tolerance"}  # the first that is there
AGREES, DIFFERS, OPEN = "agrees", "differs", "not measured"
UNJUDGED, UNJUDGED_QUICK = "not judged", "not judged: --quick"  # but measured


@dataclass(frozen=True)
class Published:
    """What a publication says about one quantity: a number, or a claim in words."""

    quantity: str
    source: str  # where it stands: "App. E, text"
    value: float | None = None
    claim: str = ""  # where there is no number
    deviation: float | None = None  # standard deviation between its runs
    tolerance: float | None = None  # what counts as the same, where no deviation is published
    others: str = ""  # what later reproductions report
    flaw: str = ""  # of the published protocol, and what is done instead


@dataclass(frozen=True)
class Measured:
    """The same quantity here, a value a run; of a claim, whether it holds."""

    values: tuple[float, ...] = ()
    holds: bool | None = None
    note: str = ""
    once: bool = False  # whether one run decides the claim: an identity, a count
    runs: int | None = None  # how many there were, where not all of them have a value


def interval(values: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of a mean over independent runs (Student); None of too few."""
    if len(values) < MIN_RUNS:
        return None
    half = float(student.ppf(0.975, len(values) - 1)) * stdev(values) / math.sqrt(len(values))
    return mean(values) - half, mean(values) + half


def spread(values: Sequence[float | None], digits: int = 4) -> str:
    """Return the mean of what is known, with its interval where there is one."""
    known = [value for value in values if value is not None]
    told = [f"{end:.{digits}f}" for end in interval(known) or ()]
    mid = f"{mean(known):.{digits}f}" if known else "–"
    return f"{mid} [{', '.join(told)}]" if told else mid


def rising(values: Sequence[float | None], where: str) -> Measured:
    """Return whether the values of one run rise from each to the next; open if one is missing."""
    known = [value for value in values if value is not None]
    told = ", ".join(map(number, values))
    holds = all(a < b for a, b in pairwise(known)) if len(known) == len(values) else None
    return Measured(holds=holds, note=f"{told} ({where})", runs=1)


def finding(published: Published, measured: Measured, quick: bool = False) -> dict[str, Any]:
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
    published: Mapping[str, Published], measured: Mapping[str, Measured], quick: bool = False
) -> list[dict[str, Any]]:
    """Return the rows of a study; every name that was measured is a published one."""
    assert set(measured) <= set(published), "declared beside the study"
    return [finding(one, measured.get(name, Measured()), quick) for name, one in published.items()]


def table(heads: str, rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; heads are split at their bars, those in cells are text."""
    told = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    body = [f"| {' | '.join(row)} |" for row in told]
    return "\n".join([f"| {heads} |", f"|{'---|' * len(heads.split(' | '))}", *body])


def findings_table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows as a section in Markdown; nothing where there are none."""
    if not rows:
        return ""
    heads = "quantity | published | others | ours | verdict"
    return f"## Ours beside published\n\n{table(heads, map(finding_cells, rows))}\n\n"


def finding_cells(row: Mapping[str, Any]) -> list[str]:
    said, source = row["claim"] or number(row["value"]), row["source"]
    for name, told in ALLOWED.items():
        if row[name] is not None:
            said += f" ± {number(row[name])}"
            source = f"{told}; {source}"
            break
    verdict = row["verdict"]
    if row["flaw"]:
        verdict += f"; published protocol flawed: {row['flaw']}"
    has_value, runs = row["ours"] is not None, row["runs"]
    ours = number(row["ours"]) if has_value else row["note"] or "–"
    if row["low"] is not None:
        ours += f" [{number(row['low'])}, {number(row['high'])}]"
    elif 0 < runs < MIN_RUNS:
        ours += f" ({runs} of at least {MIN_RUNS} runs: no interval)"
    elif has_value:
        ours += f" (of {runs} runs fewer than {MIN_RUNS} have a value: no interval)"
    if has_value and row["note"]:
        ours += f"; {row['note']}"
    return [row["quantity"], f"{said} ({source})", row["others"] or "–", ours, verdict]


def number(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"
