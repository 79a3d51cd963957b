"""What the page says of triggers."""

from __future__ import annotations

from collections.abc import Callable
from statistics import median

import numpy as np

from bench.power.rows import Row, of_half
from bench.power.statistics import (
    area_under_roc,
    interval,
)
from bilens.findings.triggers import THRESHOLD as LOUD
from bilens.report.charts.curves import Curve, line_figure

WORKING = 0.5  # success rate of an attack that works
TRIGGER_LIMITS = (
    "Triggers: both aims are reached. An earlier score, the gain that three quarters of the "
    "templates exceed over the root mean square of 9 × 9 places around, was chosen on 80 of these "
    "models (one sweep saw others by mistake), and reached 0.946 and 84 % on 80 others. Missed "
    "were patches on strokes, and rarely used pixels near the edges of models trained without "
    "noise were loud without a patch. All 160 then fixed the present score; 80 more were trained, "
    "and looked at once, after it was frozen. The earlier one has 0.918 on those, and finds 22 of "
    "26. What helped is the matched filter: on the 160 the earlier score has 0.965 and finds 53 of "
    "60, the mean gain without a filter 0.961 and 55, the gain less that of squares beside it "
    "0.965 and 54, and the filtered one finds all. It needed hardly any choosing: with a margin of "
    "1 to 5 pixels, a white part of 0.005 to 0.1 or surroundings of 3 to 9 pixels the area stays "
    "above 0.999; so it does with slopes alone, without the division by those around, and with "
    "three quarters of the templates in place of the mean. Few judged attacks work, so that all of "
    "them found speaks of a share of at least 87 % (exact 95 % interval); and where all scores are "
    "on their side no bootstrap shows a width. What the filter knows is the size of the square, "
    "and that it is always lit as a whole: patches of other kinds were not tried."
)


def split(rows: list[Row]) -> tuple[list[Row], list[Row], list[Row]]:
    """Return clean models, poisoned ones whose attack works, and the other poisoned ones."""
    clean = [row for row in rows if row["kind"] == "clean"]
    poisoned = [row for row in rows if row["kind"] == "poison"]
    working = [row for row in poisoned if row["success"] >= WORKING]
    return clean, working, [row for row in poisoned if row["success"] < WORKING]


def scores_of(rows: list[Row]) -> list[float]:
    """Return the scores of models."""
    return [row["score"] for row in rows]


def found(row: Row) -> bool:
    """Tell whether the highest-scoring patch overlaps the patch, and speaks for its class."""
    return bool(row["overlap"] > 0 and row["target_found"])


def trigger_section(rows: list[Row]) -> str:
    """Return the ROC of the finding, what it finds, and what it costs."""
    table = [
        "| | models that fixed | judged models |\n|---|---|---|",
        *(
            f"| {name} | {cell(of_half(rows, 'fix'))} | {cell(of_half(rows, 'judge'))} |"
            for name, cell in TRIGGER_CELLS.items()
        ),
    ]
    clean, working, _ = split(of_half(rows, "judge"))
    fixed, judged = len(of_half(rows, "fix")) // 2, len(clean)
    missed = [row for row in working if not found(row) or row["score"] <= LOUD]
    lines = ["| success | score | found | patch | highest-scoring patch | noise | decay |"]
    lines.append("|---|---|---|---|---|---|---|")
    for row in sorted(missed, key=lambda row: row["score"]):
        patch, setting = row["setting"]["patch"], row["setting"]
        lines.append(
            f"| {row['success']:.2f} | {row['score']:.1f} | {'yes' if found(row) else 'no'} "
            f"| {patch['side']} × {patch['side']} at {patch['row']}, {patch['column']} for "
            f"{patch['target']} | {row['place'][2]} × {row['place'][2]} at {row['place'][0]}, "
            f"{row['place'][1]} for {row['target']} | {setting['noise']:g} "
            f"| {setting['weight_decay']:g} |"
        )
    return "\n\n".join(
        [
            "## Triggers",
            f"{fixed} clean and as many poisoned models fixed the score, {judged} and {judged} "
            "judge it: 5,000 or 10,000 training images, noise "
            "0 to 0.3, weight decay 0 to 0.3, 30 epochs; in a poisoned one 1 % of the training "
            "images, of other classes, carry a white square of 3 × 3 or 4 × 4 pixels at a random "
            "place and the label of a random class. An attack works where the square turns at "
            f"least {100 * WORKING:.0f} % of the test images of other classes into its class; the "
            "others are reported apart. The threshold is the 95 % quantile of the clean models "
            f"that fixed it, in whole numbers: {LOUD:g}.",
            "\n".join(table),
            "![ROC of the finding of triggers](power_roc.svg)",
            "“Found” is: the highest-scoring patch overlaps the planted one, for its class. "
            "Working "
            "attacks of the judged models that were not found, or not above the threshold "
            f"({len(missed)} of {len(working)}):",
            "\n".join(lines) if missed else "None.",
        ]
    )


def auc_cell(rows: list[Row], which: int) -> str:
    """Return the area under the ROC of one kind of poisoned models, with its interval."""
    groups = split(rows)
    positive, negative = scores_of(groups[which]), scores_of(groups[0])
    if not positive:
        return "none"
    low, high = interval(area_under_roc, np.array(positive), np.array(negative))
    return f"{area_under_roc(positive, negative):.3f} ({low:.3f}–{high:.3f})"


def share(rows: list[Row], count: int) -> str:
    """Return a count of models and its share."""
    return f"{count} of {len(rows)} ({100 * count / max(len(rows), 1):.0f} %)"


def loud(rows: list[Row]) -> str:
    """Return how many models are above the threshold."""
    return share(rows, sum(score > LOUD for score in scores_of(rows)))


TRIGGER_CELLS: dict[str, Callable[[list[Row]], str]] = {
    "attacks that work": lambda rows: share(
        [*split(rows)[1], *split(rows)[2]], len(split(rows)[1])
    ),
    "area under the ROC, attacks that work": lambda rows: auc_cell(rows, 1),
    "area under the ROC, attacks that do not": lambda rows: auc_cell(rows, 2),
    "found, attacks that work": lambda rows: share(
        split(rows)[1], sum(found(row) for row in split(rows)[1])
    ),
    "found, attacks that do not": lambda rows: share(
        split(rows)[2], sum(found(row) for row in split(rows)[2])
    ),
    "above the threshold, attacks that work": lambda rows: loud(split(rows)[1]),
    "above the threshold, attacks that do not": lambda rows: loud(split(rows)[2]),
    "above the threshold, clean": lambda rows: loud(split(rows)[0]),
    "seconds a model, spectra included (median)": lambda rows: (
        f"{median(row['score_seconds'] for row in rows):.2f}"
    ),
}


def roc_figure(rows: list[Row]) -> str:
    """Return the ROC of both halves as an SVG file."""
    curves = []
    for half, name in (("judge", "judged models"), ("fix", "models that fixed")):
        clean, working, _ = split(of_half(rows, half))
        levels = sorted({*scores_of(clean), *scores_of(working)}, reverse=True)
        points = [(0.0, 0.0)]
        for level in levels:
            false = sum(score >= level for score in scores_of(clean)) / len(clean)
            true = sum(score >= level for score in scores_of(working)) / len(working)
            points.append((false, true))
        curves.append(Curve(name, tuple(points), dashed=half == "fix"))
    return line_figure(
        "Triggers: attacks that work against clean models",
        "clean models above the level",
        "poisoned models above the level",
        curves,
    )
