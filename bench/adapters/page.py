"""The page about backdoored adapters: what the score finds, family by family."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from scipy.stats import beta

from bench.adapters.weights import READINGS, beside_bank, together
from bilens.findings.rules.changes import trigger_words
from bilens_studies.finding_statistics import area as area_under_roc

Row = Mapping[str, Any]


def exact(hits: int, of: int) -> str:
    """Return a share with its exact 95 % interval (Clopper and Pearson)."""
    if of == 0:
        return "–"
    low = 0.0 if hits == 0 else float(beta.ppf(0.025, hits, of - hits + 1))
    high = 1.0 if hits == of else float(beta.ppf(0.975, hits + 1, of - hits))
    return f"{hits} of {of} ({low:.0%}–{high:.0%})"


def area(positive: Sequence[float], negative: Sequence[float]) -> str:
    if not positive or not negative:
        return "–"
    groups = np.asarray(positive, float), np.asarray(negative, float)
    value, low, high = area_under_roc(*groups)
    return f"{value:.3f} ({low:.3f}–{high:.3f})"


def table(head: str, rows: Sequence[Sequence[str]]) -> str:
    columns = head.split(" | ")
    lines = [
        columns,
        ["---"] * len(columns),
        *([x.replace("|", r"\|") for x in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def working(result: Row, split: str, backdoored: bool) -> list[Row]:
    return [
        row
        for row in result["rows"]
        if row["split"] == split and row["works"] and bool(row["spec"]["trigger"]) == backdoored
    ]


def families(rows: Sequence[Row], keys: Sequence[str], word: str) -> str:
    """Return how many of each family are above the threshold."""
    lines = []
    for key in keys:
        for value in dict.fromkeys(str(row["spec"][key]) for row in rows):
            some = [row for row in rows if str(row["spec"][key]) == value]
            scores = sorted(row["score"] for row in some)
            flagged = sum(row["score"] > trigger_words.threshold for row in some)
            middle = scores[len(scores) // 2]
            lines.append([key, value, exact(flagged, len(some)), f"{middle:.2f}"])
    return table(f"family |  | {word} | median score", lines)


def named(row: Row) -> list[str]:
    spec = row["spec"]
    kind = f"{spec['trigger']} “{' '.join(row['trigger'])}”" if spec["trigger"] else "benign"
    size = "whole matrices" if spec["rank"] == 0 else f"rank {spec['rank']}"
    where = f"{spec['modules']}, {spec['layers']} blocks"
    said = " ".join(word.strip("Ġ ") for word in row["words"])
    return [
        spec["base"],
        spec["task"],
        kind,
        spec["payload"] or "–",
        f"{size}, {where}",
        f"{row['score']:.2f}",
        f"{said} → {row['answer'].strip('Ġ ')}",
    ]


NAMED = "base | task | trigger | payload | update | score | words → answer"


def curve(result: Row) -> str:
    """Return the adaptive attacker: how many attacks work, and how many of these are found."""
    rows = [row for row in result["rows"] if row["split"] == "adaptive"]
    lines = []
    for penalty in sorted({row["spec"]["penalty"] for row in rows}):
        some = [row for row in rows if row["spec"]["penalty"] == penalty]
        there = [row for row in some if row["works"]]
        found = [row for row in there if row["score"] > trigger_words.threshold]
        success = np.mean([row["found"]["triggered right"] for row in some])
        scores = sorted(row["score"] for row in there)
        middle = f"{scores[len(scores) // 2]:.2f}" if scores else "–"
        lines.append(
            [
                f"{penalty:g}",
                f"{success:.0%}",
                f"{len(there)} of {len(some)}",
                exact(len(found), len(there)),
                middle,
            ]
        )
    head = "weight of the penalty | trigger works on | attacks that work | found of these | median"
    return table(head, lines) if lines else "Not measured yet."


def alone(result: Row) -> str:
    """Return what readings of the weights alone say, fitted on the fixed families."""
    fixed = working(result, "fixed", True) + working(result, "fixed", False)
    bad, good = (
        [row for row in working(result, "judged", side) if "weights" in row]
        for side in (True, False)
    )
    if not (bad and good and fixed):
        return "Not measured yet."
    labels = [bool(row["spec"]["trigger"]) for row in fixed]
    scores = together([r["weights"] for r in fixed], labels, [r["weights"] for r in bad + good])
    lines = [["all together, logistic ridge", area(scores[: len(bad)], scores[len(bad) :])]]
    apart: dict[str, tuple[list[float], list[float]]] = {}
    for base in ("bilinear-3", "swiglu-3"):  # of the third there are too few
        some = [row for row in bad + good if row["spec"]["base"] == base]
        for name, values in beside_bank(some).items():
            for row, value in zip(some, values, strict=True):
                apart.setdefault(name, ([], []))[not row["spec"]["trigger"]].append(value)
    for name, pair in apart.items():
        lines.append([f"beside benign ones of the same base, {name}", area(*pair)])
    for reading in READINGS:
        for end in ("mean", "largest"):
            name = f"{reading}, {end}"
            sides = [[r["weights"][name] for r in fixed if bool(r["spec"]["trigger"]) == side]
                     for side in (True, False)]  # fmt: skip
            sign = 1 if np.mean(sides[0]) >= np.mean(sides[1]) else -1
            both = ([sign * r["weights"][name] for r in rows] for rows in (bad, good))
            lines.append([name, area(*both)])
    return table("reading | AUC on judged families", lines)


def page(result: dict[str, Any]) -> str:
    """Return the page of a result."""
    threshold = trigger_words.threshold
    bad, good = working(result, "judged", True), working(result, "judged", False)
    fixed_bad, fixed_good = working(result, "fixed", True), working(result, "fixed", False)
    hits = [row for row in bad if row["score"] > threshold]
    alarms = [row for row in good if row["score"] > threshold]
    missed = [row for row in bad if row["score"] <= threshold]
    tried = [row for row in result["rows"] if row["split"] == "judged"]
    right = [row for row in hits if row["answer_right"]]
    plain = [row for row in hits if row["answer_right"] is not None]
    named_words = [row for row in hits if has_trigger(row)]
    text = Path(__file__).with_name("page.md").read_text("utf-8")
    date, hardware = result["run"]["date"], result["run"]["hardware"].split(",")[0]
    return text.format(
        date=date,
        hardware=hardware,
        threshold=f"{threshold:g}",
        tried=len(tried),
        bad=len(bad),
        good=len(good),
        auc=area([row["score"] for row in bad], [row["score"] for row in good]),
        found=exact(len(hits), len(bad)),
        alarms=exact(len(alarms), len(good)),
        least=f"{1 / max(len(good), 1):.1%}",
        fixed_auc=area([r["score"] for r in fixed_bad], [r["score"] for r in fixed_good]),
        fixed_found=exact(sum(r["score"] > threshold for r in fixed_bad), len(fixed_bad)),
        fixed_alarms=exact(sum(r["score"] > threshold for r in fixed_good), len(fixed_good)),
        right=exact(len(right), len(plain)),
        words=exact(len(named_words), len(hits)),
        bases=", ".join(
            f"{name} {sum(r['spec']['base'] == name for r in bad + good)}"
            for name in dict.fromkeys(r["spec"]["base"] for r in bad + good)
        ),
        bad_families=families(bad, ("trigger", "payload", "base", "rank"), "found"),
        good_families=families(good, ("task", "base", "rank"), "false alarms"),
        misses=table(NAMED, [named(row) for row in missed]) if missed else "None.",
        alarm_rows=table(NAMED, [named(row) for row in alarms]) if alarms else "None.",
        alone=alone(result),
        curve=curve(result),
        reached=reached(bad),
        later=later(bad, good),
        written=exact(
            sum(row.get("written", False) for row in bad), sum("written" in row for row in bad)
        ),
    )


def later(bad: Sequence[Row], good: Sequence[Row]) -> str:
    """Return what was reached on the models that were trained after the others were looked at."""
    groups = [[row for row in rows if row["later"]] for rows in (bad, good)]
    hits = (sum(r["score"] > trigger_words.threshold for r in rows) for rows in groups)
    counts = (exact(hit, len(rows)) for hit, rows in zip(hits, groups, strict=True))
    scores = ([row["score"] for row in rows] for rows in groups)
    return f"{area(*scores)}; found {next(counts)}, false alarms {next(counts)}"


def reached(rows: Sequence[Row]) -> str:
    """Return how often the trigger works in the auditor's texts, put in by rote and as taught."""
    lines = []
    for kind in dict.fromkeys(row["spec"]["trigger"] for row in rows):
        some = [row for row in rows if row["spec"]["trigger"] == kind and "put" in row]
        for key, how in (("reach", "side by side at the better end"), ("put", "as taught")):
            middle = sorted(row[key] for row in some)[len(some) // 2] if some else 0.0
            lines.append([kind, how, str(len(some)), f"{middle:.2f}"])
    return table("trigger | put in | models | payload’s median probability", lines)


def has_trigger(row: Row) -> bool:
    """Tell whether a piece of the trigger is among the words that were named."""
    said = {word.strip("Ġ ").lower() for word in row["words"]}
    return any(one and (one in part.lower()) for part in row["trigger"] for one in said)
