"""Rules on a model with named columns: the reading, its score, where its variance comes from."""

from __future__ import annotations

from collections.abc import Callable

from bilens.findings.rules.rule import Evidence, Judged, Rule


def exact(evidence: Evidence) -> Judged:
    found = evidence.exactness
    if not found:
        return None
    worst = max(found, key=lambda item: item.relative_error / item.tolerance)
    passed = all(item.passed for item in found)
    values = {"error": worst.relative_error, "inputs": worst.num_inputs}
    return "pass" if passed else "fail", values


def score_of(kind: str) -> Callable[[Evidence], Judged]:
    """Return the judge of one kind of score."""

    def judge(evidence: Evidence) -> Judged:
        score = evidence.score
        if score is None or score.kind != kind:
            return None
        return "info" if score.value > score.plain else "warn", {
            "value": score.value,
            "low": score.value if score.low is None else score.low,
            "high": score.value if score.high is None else score.high,
            "plain": score.plain,
            "total": score.total,
        }

    return judge


def seen_rows(evidence: Evidence) -> Judged:
    return ("warn", {}) if evidence.score is not None and evidence.seen_rows else None


def shares(evidence: Evidence) -> Judged:
    effects = evidence.effects
    if not effects:
        return None
    variance = sum(item.variance for item in effects) or 1.0
    return "info", {
        "linear": sum(item.variance * item.linear_share for item in effects) / variance,
        "square": sum(item.variance * item.square_share for item in effects) / variance,
        "pair": sum(item.variance * item.pair_share for item in effects) / variance,
    }


TABLE_EXACT = Rule(
    "exact",
    ("table",),
    {"error": "scientific", "inputs": "count"},
    exact,
    number="error",
    sentences="table_exact",
)
TABLE_ACCURACY = Rule(
    "accuracy",
    ("table",),
    {
        "value": "percent",
        "low": "percent",
        "high": "percent",
        "plain": "percent",
        "total": "count",
    },
    score_of("accuracy"),
    needs="data",
    sentences="table_accuracy",
)
R_SQUARED = Rule(
    "r_squared",
    ("table",),
    {"value": "fixed2", "low": "fixed2", "high": "fixed2", "plain": "fixed2", "total": "count"},
    score_of("r_squared"),
    needs="data",
)
SEEN_ROWS = Rule("seen_rows", ("table",), {}, seen_rows, number=None)
SHARES = Rule(
    "shares",
    ("table",),
    {"linear": "percent0", "square": "percent0", "pair": "percent0"},
    shares,
    number=None,
)
