"""The verdict: a few rules, each with its outcome and the numbers behind it."""

from __future__ import annotations

import statistics

from bilens.records.audit import ClassReading, Overfitting, Triggers, TruncationPoint
from bilens.records.verdict import Exactness, Finding, Share


def judge(
    exactness: tuple[Exactness, ...],
    classes: tuple[ClassReading, ...],
    accuracy: Share | None,
    truncation: tuple[TruncationPoint, ...],
    enough: int,
) -> tuple[Finding, ...]:
    """Return the rules in the order in which a reader needs them.

    Args:
        exactness: one entry for each precision.
        classes: the reading of each class.
        accuracy: None where no data were given.
        truncation: the curve, empty where no data were given.
        enough: the fewest eigenvectors that keep the accuracy; one of the curve's points.
    """
    findings = [_exact(exactness), _complete(classes)]
    if accuracy is not None:
        findings.append(accuracy_finding(accuracy))
        findings.append(_few_directions(truncation, enough))
    findings.append(_beyond_null(classes))
    return tuple(findings)


def accuracy_finding(accuracy: Share) -> Finding:
    """Return how often the model is right."""
    numbers = {"value": accuracy.value, "low": accuracy.low, "high": accuracy.high}
    return Finding("accuracy", "info", {**numbers, "total": accuracy.total})


def judge_warnings(
    overfitting: Overfitting, triggers: Triggers, names: tuple[str, ...]
) -> tuple[Finding, ...]:
    """Return the rules of overfitting and of triggers; nothing where they do not apply.

    Args:
        overfitting: read from the weights.
        triggers: read from the weights.
        names: of the classes.
    """
    findings = []
    if overfitting.score is not None:
        assert overfitting.threshold is not None, "a score has a threshold"
        findings.append(
            Finding(
                "overfitting",
                "warn" if overfitting.score > overfitting.threshold else "info",
                {"gap": overfitting.score, "threshold": overfitting.threshold},
            )
        )
    if triggers.score is not None:
        assert triggers.threshold is not None, "a score has a threshold"
        window = triggers.patches[0]
        findings.append(
            Finding(
                "trigger",
                "warn" if triggers.score > triggers.threshold else "info",
                {
                    "score": triggers.score,
                    "threshold": triggers.threshold,
                    "target": names[window.target],
                    "row": window.row,
                    "column": window.column,
                    "side": window.side,
                },
            )
        )
    return tuple(findings)


def _exact(exactness: tuple[Exactness, ...]) -> Finding:
    errors = {str(item.precision): item.relative_error for item in exactness}
    return Finding(
        "exact",
        "pass" if all(item.passed for item in exactness) else "fail",
        {**errors, "inputs": exactness[0].num_inputs},
    )


def _complete(classes: tuple[ClassReading, ...]) -> Finding:
    incomplete = [reading.name for reading in classes if not reading.complete]
    worst = max(reading.largest_residual for reading in classes)
    return Finding(
        "complete",
        "fail" if incomplete else "pass",
        {"residual": worst, "classes": len(classes), "incomplete": ", ".join(incomplete)},
    )


def _few_directions(truncation: tuple[TruncationPoint, ...], enough: int) -> Finding:
    full = truncation[-1]
    point = next(point for point in truncation if point.k == enough)
    return Finding(
        "few_directions",
        "info",
        {"k": enough, "of": full.k, "accuracy": point.accuracy, "full": full.accuracy},
    )


def _beyond_null(classes: tuple[ClassReading, ...]) -> Finding:
    counts = [item.significant_positive + item.significant_negative for item in classes]
    none = [item.name for item, count in zip(classes, counts, strict=True) if count == 0]
    return Finding(
        "beyond_null",
        "warn" if none else "info",
        {
            "median": statistics.median(counts),
            "least": min(counts),
            "most": max(counts),
            "none": ", ".join(none),
        },
    )
