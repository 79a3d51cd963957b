"""Conditions that fail an audit: a rule of the verdict by name, or its number against a limit."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, Literal

from bilens.base.errors import UsageError
from bilens.records.verdict import Finding, JudgedCondition

COMPARED: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
GRAMMAR = re.compile(r"\s*([a-z0-9_]+)\s*(?:(<=|>=|<|>)\s*(\S+?))?\s*")


@dataclass(frozen=True)
class Rule:
    """What a condition on a rule compares.

    Attributes:
        number: which of the rule's numbers stands for it.
        bad: the side of its threshold on which a rule by name fails; None: by its outcome alone.
        needs: what has to be given for the rule to be judged.
    """

    number: str = "value"
    bad: Literal["<", ">"] | None = None
    needs: Literal["data", "baseline"] | None = None


RULES: Final[dict[str, Rule]] = {
    "exact": Rule("float32"),
    "complete": Rule("residual"),
    "accuracy": Rule(needs="data"),
    "few_directions": Rule("k", needs="data"),
    "r_squared": Rule(needs="data"),
    "beyond_null": Rule("least"),
    "overfitting": Rule("gap", bad=">"),
    "trigger": Rule("score", bad=">"),
    "non_finite": Rule(bad=">"),
    "r2": Rule(bad="<"),
    "dead_units": Rule(bad=">"),
    "duplicate_units": Rule(bad=">"),
    "huge_norm": Rule(bad=">"),
    "unused_inputs": Rule(bad=">"),
    "dominant_inputs": Rule(bad=">"),
    "low_rank": Rule(bad="<"),
    "unstable_directions": Rule(bad=">"),
    "changed_layers": Rule(bad=">", needs="baseline"),
    "similarity": Rule(bad="<", needs="baseline"),
    "change": Rule(bad=">", needs="baseline"),
    "concentrated_change": Rule(bad="<", needs="baseline"),
}


IMPLIED: Final = {
    "r2": Finding("r2", "pass", {"value": 1.0}),
    "non_finite": Finding("non_finite", "pass", {"value": 0}),
}


@dataclass(frozen=True)
class Condition:
    """One condition, as it was asked for: `rule`, or `rule operator limit`."""

    rule: str
    operator: str | None = None
    limit: float | None = None

    def __str__(self) -> str:
        return self.rule if self.limit is None else f"{self.rule}{self.operator}{self.limit:g}"


def parse_conditions(texts: Sequence[str], *, data: bool, baseline: bool) -> tuple[Condition, ...]:
    """Return the conditions that texts such as "r2<0.9" or "unused_inputs" ask for.

    Args:
        texts: each `NAME`, or `NAME < NUMBER` with <, <=, > or >=: the audit fails where it holds.
        data: whether data are given.
        baseline: whether another model is given.

    Raises:
        UsageError: If one is no condition, names no rule, or needs what is not given.
    """
    if isinstance(texts, str):
        raise UsageError(f"fail_on is the text {texts!r}: pass a list of conditions, [{texts!r}].")
    given = {"data": data, "baseline": baseline}
    how = {"data": "pass data (--data-dir, or --table)", "baseline": "pass a baseline (--baseline)"}
    found = tuple(map(parse_condition, texts))
    for condition in found:
        needs = RULES[condition.rule].needs
        if needs is not None and not given[needs]:
            raise UsageError(f"the rule {condition.rule} needs {needs}: {how[needs]}.")
    return found


def parse_condition(text: str) -> Condition:
    """Return one condition.

    Raises:
        UsageError: If it is none.
    """
    match = GRAMMAR.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(
            f"{text!r} is no condition: write a rule, such as unused_inputs, or a rule with a "
            "limit, such as 'r2<0.9' (<, <=, > or >=)."
        )
    rule, compared, limit = match.groups()
    if rule not in RULES:
        raise UsageError(f"there is no rule {rule!r}: choose one of {', '.join(RULES)}.")
    if compared is None:
        return Condition(rule)
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{limit!r} in {text!r} is no finite number: write for example {rule}<1.")
    return Condition(rule, compared, number)


def judge_conditions(
    conditions: Sequence[Condition], verdict: Sequence[Finding]
) -> tuple[JudgedCondition, ...]:
    """Return how each condition ended. What cannot be judged has failed: silence is no pass."""
    findings = {finding.rule: finding for finding in verdict}
    if "exact" in findings:  # a classifier of one layer that is finite and quadratic
        findings = {**IMPLIED, **findings}
    return tuple(_judge(condition, findings.get(condition.rule)) for condition in conditions)


def _judge(condition: Condition, finding: Finding | None) -> JudgedCondition:
    values = {} if finding is None else finding.values
    value = values.get(RULES[condition.rule].number, values.get("error"))  # "error": of a table
    if finding is None or not isinstance(value, int | float):
        return JudgedCondition(str(condition), condition.rule, None, True)
    if condition.operator is not None and condition.limit is not None:
        failed = COMPARED[condition.operator](value, condition.limit)
    else:
        bad, threshold = RULES[condition.rule].bad, finding.values.get("threshold")
        failed = finding.outcome in ("warn", "fail")
        if bad is not None and isinstance(threshold, int | float):
            failed = failed or COMPARED[bad](value, threshold)
    return JudgedCondition(str(condition), condition.rule, float(value), failed)
