"""Writes the page of a study: its template of `pages/`, in Jinja, below what was published."""

from collections.abc import Iterable, Mapping, Sequence
from functools import cache
from statistics import mean
from typing import Any

from jinja2 import ChoiceLoader, Environment, PackageLoader, StrictUndefined, select_autoescape

from bilens_studies.published import MIN_RUNS, interval, number

ALLOWED = {"deviation": "published deviation", "tolerance": "tolerance"}  # the first that is there


@cache
def templates() -> Environment:
    """Return the templates of `pages/`, in which an unknown name is an error."""
    found = Environment(
        loader=ChoiceLoader(
            [PackageLoader("bilens_studies", "pages"), PackageLoader("bilens.report")]  # its styles
        ),
        undefined=StrictUndefined,
        autoescape=select_autoescape(),
        trim_blocks=True,
        lstrip_blocks=True,
    )
    found.filters |= {"f": formatted, "spread": spread, "mean": mean_over}
    found.globals |= {"heads": head_lines, "zip": zip}
    return found


def formatted(value: Any, form: str) -> str:
    """Return a number, or a value with its interval where it has one; of None a dash."""
    if value is None:
        return "–"
    if not isinstance(value, Mapping):
        return format(value, form)
    known = ", ".join(f"{end:{form}}" for end in (value["low"], value["high"]) if end is not None)
    return f"{value['value']:{form}} [{known}]" if known else f"{value['value']:{form}}"


def spread(values: Sequence[float | None], digits: int = 4) -> str:
    """Return the mean of what is known, with its interval where there is one."""
    known = [value for value in values if value is not None]
    ends = ", ".join(f"{end:.{digits}f}" for end in interval(known) or ())
    return (f"{mean(known):.{digits}f}" if known else "–") + (f" [{ends}]" if ends else "")


def mean_over(values: Iterable[Any], name: str | None = None) -> float:
    """Return the mean of numbers, or of a field of several records."""
    return float(mean(values if name is None else [record[name] for record in values]))


def head_lines(*heads: object) -> str:
    """Return the first two lines of a table in Markdown."""
    return f"| {' | '.join(map(str, heads))} |\n|{'---|' * len(heads)}"


def table(heads: str, rows: Iterable[Sequence[object]]) -> str:
    """Return a table in Markdown; heads are split at their bars, those in cells are text."""
    cells = ([str(cell).replace("|", "\\|") for cell in row] for row in rows)
    return "\n".join(
        [head_lines(*heads.split(" | ")), *(f"| {' | '.join(row)} |" for row in cells)]
    )


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
