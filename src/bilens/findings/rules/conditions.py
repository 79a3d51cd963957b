"""Conditions that fail an audit: a rule of the verdict by name, or its number against a limit."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from bilens.base.errors import UsageError
from bilens.findings.rules.registry import find_rule, rule_names, rules_asked_for
from bilens.records.verdict import Finding, JudgedCondition

COMPARED: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
GRAMMAR = re.compile(r"\s*([a-z0-9_]+)\s*(?:(<=|>=|<|>)\s*(\S+?))?\s*")


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
    """Return the conditions that texts such as "r2<0.9" or "unused_inputs" ask for."""
    if isinstance(texts, str):
        raise UsageError(f"fail_on is the text {texts!r}: pass a list of conditions, [{texts!r}].")
    given = {"data": data, "baseline": baseline}
    how = {"data": "pass data (--data-dir, or --table)", "baseline": "pass a baseline (--baseline)"}
    found = tuple(map(parse_condition, texts))
    for condition in found:
        needs = rules_asked_for()[condition.rule].needs
        if needs is not None and not given[needs]:
            raise UsageError(f"the rule {condition.rule} needs {needs}: {how[needs]}.")
    return found


def parse_condition(text: str) -> Condition:
    """Return one condition."""
    match = GRAMMAR.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(
            f"{text!r} is no condition: write a rule, such as unused_inputs, or a rule with a "
            "limit, such as 'r2<0.9' (<, <=, > or >=)."
        )
    rule, compared, limit = match.groups()
    if rule not in rule_names():
        raise UsageError(f"there is no rule {rule!r}: choose one of {', '.join(rule_names())}.")
    if compared is None:
        return Condition(rule)
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{limit!r} in {text!r} is no finite number: write for example {rule}<1.")
    return Condition(rule, compared, number)


def condition_help() -> str:
    """Return what `--fail-on` takes, for its help."""
    return (
        "Fail (exit code 1) on a rule, such as unused_inputs, or on a rule with a limit, such as "
        f"'r2<0.9'; may be given again. Rules: {', '.join(rule_names())}."
    )


def judge_conditions(
    kind: str, conditions: Sequence[Condition], verdict: Sequence[Finding]
) -> tuple[JudgedCondition, ...]:
    """Return how each condition ended. What cannot be judged has failed: silence is no pass."""
    findings = {finding.rule: finding for finding in verdict}
    if "exact" in findings:  # a classifier of one layer that is finite and quadratic
        findings = {**IMPLIED, **findings}
    return tuple(judged(kind, item, findings.get(item.rule)) for item in conditions)


def judged(kind: str, condition: Condition, finding: Finding | None) -> JudgedCondition:
    rule = find_rule(condition.rule, kind) or rules_asked_for()[condition.rule]
    value = None if finding is None else finding.values.get(rule.number or "")
    if finding is None or not isinstance(value, int | float):
        return JudgedCondition(str(condition), condition.rule, None, True)
    if condition.operator is not None and condition.limit is not None:
        failed = COMPARED[condition.operator](value, condition.limit)
    else:
        bad, threshold = rule.bad, finding.values.get("threshold")
        failed = finding.outcome in ("warn", "fail")
        if bad is not None and isinstance(threshold, int | float):
            failed = failed or COMPARED[bad](value, threshold)
    return JudgedCondition(str(condition), condition.rule, float(value), failed)
