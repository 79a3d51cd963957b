"""Rules on a classifier read class by class: the reading, its accuracy, what it may hide."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import replace

from bilens.findings.rules.rule import Evidence, Judged, Rule
from bilens.records.verdict import Value


def exact(evidence: Evidence) -> Judged:
    if not evidence.exactness:
        return None
    errors = {item.precision: item.relative_error for item in evidence.exactness}
    passed = all(item.passed for item in evidence.exactness)
    return "pass" if passed else "fail", {**errors, "inputs": evidence.exactness[0].num_inputs}


def complete(evidence: Evidence) -> Judged:
    classes = evidence.classes
    if not classes:
        return None
    incomplete = [reading.name for reading in classes if not reading.complete]
    worst = max(reading.largest_residual for reading in classes)
    return "fail" if incomplete else "pass", {
        "residual": worst,
        "classes": len(classes),
        "incomplete": ", ".join(incomplete),
    }


def accuracy(evidence: Evidence) -> Judged:
    share = evidence.accuracy
    if share is None:
        return None
    values = {"value": share.value, "low": share.low, "high": share.high, "total": share.total}
    return "info", values


def few_directions(evidence: Evidence) -> Judged:
    if not evidence.truncation:
        return None
    full, enough = evidence.truncation[-1], evidence.enough
    point = next(point for point in evidence.truncation if point.k == enough)
    values = {"k": enough, "of": full.k, "accuracy": point.accuracy, "full": full.accuracy}
    return "info", values


def none_or_all(values: Mapping[str, Value]) -> str:
    return {0: "_none", values["of"]: "_all"}.get(values["k"], "")


def beyond_null(evidence: Evidence) -> Judged:
    if not evidence.classes:
        return None
    counts = [item.significant_positive + item.significant_negative for item in evidence.classes]
    none = [item.name for item, n in zip(evidence.classes, counts, strict=True) if n == 0]
    return "warn" if none else "info", {
        "median": statistics.median(counts),
        "least": min(counts),
        "most": max(counts),
        "none": ", ".join(none),
    }


def overfitting(evidence: Evidence) -> Judged:
    found = evidence.overfitting
    if found is None or found.score is None or found.threshold is None:
        return None
    values = {"gap": found.score, "threshold": found.threshold}
    return "warn" if found.score > found.threshold else "info", values


def trigger(evidence: Evidence) -> Judged:
    found = evidence.triggers
    if found is None or found.score is None or found.threshold is None:
        return None
    patch = found.patches[0]
    return "warn" if found.score > found.threshold else "info", {
        "score": found.score,
        "threshold": found.threshold,
        "target": evidence.output_names[patch.target],
        "row": patch.row,
        "column": patch.column,
        "side": patch.side,
    }


EXACT = Rule(
    "exact",
    ("audit",),
    {"float32": "scientific", "float64": "scientific", "inputs": "count"},
    exact,
    number="float32",
)
COMPLETE = Rule(
    "complete",
    ("audit",),
    {"residual": "scientific", "classes": "count", "incomplete": "text"},
    complete,
    number="residual",
)
ACCURACY = Rule(
    "accuracy",
    ("audit",),
    {"value": "percent", "low": "percent", "high": "percent", "total": "count"},
    accuracy,
    needs="data",
)
LAYERED_ACCURACY = replace(ACCURACY, documents=("layer_audit",))  # behind R² there
FEW_DIRECTIONS = Rule(
    "few_directions",
    ("audit",),
    {"k": "count", "of": "count", "accuracy": "percent", "full": "percent"},
    few_directions,
    number="k",
    needs="data",
    variant=none_or_all,
)
BEYOND_NULL = Rule(
    "beyond_null",
    ("audit",),
    {"median": "whole", "least": "count", "most": "count", "none": "text"},
    beyond_null,
    number="least",
)
OVERFITTING = Rule(
    "overfitting",
    ("audit",),
    {"gap": "points", "threshold": "points"},
    overfitting,
    number="gap",
    bad=">",
)
TRIGGER = Rule(
    "trigger",
    ("audit",),
    {
        "score": "fixed1",
        "threshold": "fixed1",
        "target": "text",
        "row": "count",
        "column": "count",
        "side": "count",
    },
    trigger,
    number="score",
    bad=">",
)
