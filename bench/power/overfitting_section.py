"""What the page says of overfitting."""

from __future__ import annotations

import math
from statistics import median

import numpy as np

from bench.power.rows import Row, of_half
from bench.power.statistics import (
    Numbers,
    best_three,
    correlation_interval,
    interval,
    least_squares,
    rank_correlation,
)
from bilens.findings.overfitting import FLOOR, OFFSET, THRESHOLD as GAP

OVERFITTING_LIMITS = (
    "Overfitting: the aim is reached. An earlier formula of three readings (`earlier formula` in "
    "the table) was fixed on 60 of these models and reached 0.78 on the next 60. Then all 120 "
    "served to choose anew, among some 350 readings; 60 more were trained, and looked at once, "
    "after the formula was frozen. These are easier to rank, as the earlier formula and "
    "WeightWatcher show: compare scores within a column, not with 0.78. What helped: shift "
    "tolerance, which no earlier reading resembles, and slopes at a spot of ink, which stays where "
    "it is, while templates are as good or as bad as the model. What helped less: the similarity "
    "of the templates of two classes (0.82, left one out, beside the three earlier readings), the "
    "share of high frequencies in the slopes (0.85 with both), margins at the templates and their "
    "ratio to the slopes, the tail of the spectra, norms and singular values of the four "
    "matrices. Formulas that also read the norm at low frequencies, or the width of the model, "
    "reached 0.88 to 0.89, left one out, within chance of this one. The width has but two values "
    "here; the other was left out to keep the formula short. Mixed settings are hard for every "
    "score: an unfinished training, strong noise and few images change the same weights."
)


def overfitting_section(rows: list[Row]) -> str:
    """Return how each score ranks the models."""
    fix, judge = of_half(rows, "fix"), of_half(rows, "judge")
    gaps = [row["gap"] for row in judge]
    ours, theirs = judge[0]["scores"], judge[0]["weightwatcher"]
    names = [("scores", name) for name in ours if name != "score"]
    names += [("weightwatcher", name) for name in theirs]
    lines = [correlation_row("**score** (recommended)", fix, judge, "scores", "score")]
    lines += sorted(
        (correlation_row(label(*name), fix, judge, *name) for name in names), key=strength
    )
    lines.append(fitted_row(fix, judge))
    flagged = [row for row in judge if row["scores"]["score"] > GAP]
    wide = [row for row in judge if row["gap"] > GAP]
    right = sum(row["gap"] > GAP for row in flagged)
    return "\n\n".join(
        [
            "## Overfitting",
            f"{len(rows)} models: 500 to 20,000 training images, noise 0 to 0.6, weight decay 0 to "
            "1, 0 to 30 % wrong labels, up to 120 epochs. The true gap is the accuracy on the "
            "training images with the labels that were trained on, minus the expected accuracy on "
            "test images whose labels are disturbed at the same rate: a sample against the "
            f"distribution it came from. On the {len(judge)} judged models it runs from "
            f"{100 * min(gaps):.1f} to {100 * max(gaps):.1f} percentage points, median "
            f"{100 * median(gaps):.1f}.",
            "Rank correlation (Spearman) with the true gap, by falling size on the judged models:",
            "| score | models that fixed | judged models | interval | with the gap of the loss |\n"
            "|---|---|---|---|---|\n" + "\n".join(lines),
            "`WeightWatcher` rows are means over the four weight matrices. The last row gives it "
            "the same chance: the best three of its metrics by leave-one-out on the models "
            "that fixed, fitted there to the same target.",
            ahead(fix, judge),
            f"The score is made of four readings, fitted to ln(gap + {OFFSET:g}) on the {len(fix)} "
            "models that fixed. With each of these predicted by the others, the correlation is "
            f"{left_out(fix):.2f}. At its threshold of {100 * GAP:g} points it flags "
            f"{len(flagged)} judged models, {right} of them with a true gap above {100 * GAP:g} "
            f"points; of all {len(wide)} with such a gap it flags {right}.",
        ]
    )


def left_out(rows: list[Row]) -> float:
    """Return the correlation of the gap with the formula fitted to the other models each time."""
    scores = [row["scores"] for row in rows]
    columns = [
        [math.log(found["steepness"]), math.log(found["edge_mass"] + FLOOR)] for found in scores
    ]
    plain = [[found["roughness"], found["shift_tolerance"]] for found in scores]
    target = np.log(np.array([row["gap"] for row in rows]) + OFFSET)
    return float(rank_correlation(least_squares(np.hstack([columns, plain]), target)[1], target))


def label(source: str, name: str) -> str:
    """Return the name of a score in the table."""
    return name.replace("_", " ") if source == "scores" else f"WeightWatcher {name}"


def correlation_row(title: str, fix: list[Row], judge: list[Row], source: str, name: str) -> str:
    """Return the correlations of one score."""
    kept = [[row for row in half if name in row[source]] for half in (fix, judge)]
    values = [[row[source][name] for row in half] for half in kept]
    gaps = [[row["gap"] for row in half] for half in kept]
    losses = [row["loss_gap"] for row in kept[1]]
    return numbers_row(title, values, gaps, losses)


def numbers_row(
    title: str, values: list[list[float]], gaps: list[list[float]], losses: list[float]
) -> str:
    """Return a row of the table from the values on both halves."""
    first, second = (rank_correlation(x, y) for x, y in zip(values, gaps, strict=True))
    low, high = correlation_interval(values[1], gaps[1])
    loss = rank_correlation(values[1], losses)
    return f"| {title} | {first:.2f} | {second:.2f} | {low:.2f} to {high:.2f} | {loss:.2f} |"


def strength(line: str) -> float:
    """Return the key that sorts rows by the size of the judged correlation, largest first."""
    return -abs(float(line.split("|")[3]))


def fitted_row(fix: list[Row], judge: list[Row]) -> str:
    """Return the correlations of WeightWatcher's best three metrics, fitted as our score is."""
    chosen, values = fitted(fix, judge)
    gaps = [[row["gap"] for row in half] for half in (fix, judge)]
    title = "WeightWatcher, fitted: " + ", ".join(chosen)
    return numbers_row(title, values, gaps, [row["loss_gap"] for row in judge])


def fitted(fix: list[Row], judge: list[Row]) -> tuple[tuple[str, ...], list[list[float]]]:
    """Return WeightWatcher's best three metrics, and what their fit says of both sets of models."""
    shared = sorted(set.intersection(*(set(row["weightwatcher"]) for row in (*fix, *judge))))

    def column(rows: list[Row], name: str) -> Numbers:
        return np.array([row["weightwatcher"][name] for row in rows])

    target = np.log(np.array([row["gap"] for row in fix]) + OFFSET)
    chosen = best_three({name: column(fix, name) for name in shared}, target)
    tables = [np.column_stack([column(half, name) for name in chosen]) for half in (fix, judge)]
    coefficients, _ = least_squares(tables[0], target)
    return chosen, [(coefficients[0] + table @ coefficients[1:]).tolist() for table in tables]


def ahead(fix: list[Row], judge: list[Row]) -> str:
    """Return how far our score is ahead of the others on the judged models, with intervals."""
    gaps = [row["gap"] for row in judge]
    own = [row["scores"]["score"] for row in judge]

    def lead(other: list[float]) -> str:
        def difference(rows: Numbers) -> Numbers:
            own, other, gaps = np.moveaxis(rows, -1, 0)
            return rank_correlation(own, gaps) - rank_correlation(other, gaps)

        table = np.column_stack([own, other, gaps])
        low, high = interval(difference, table)
        return f"{difference(table):.2f} ({low:.2f} to {high:.2f})"

    _, (_, three) = fitted(fix, judge)
    single = [row["weightwatcher"]["alpha_weighted"] for row in judge]
    earlier = [row["scores"]["earlier_formula"] for row in judge]
    return (
        "On the judged models, in the same resamples, the score is ahead of WeightWatcher's "
        f"alpha_weighted by {lead(single)}, of the fitted three by {lead(three)} and of the "
        f"earlier formula by {lead(earlier)}."
    )
