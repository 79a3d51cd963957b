"""All rules of a verdict, and conditions that fail an audit: a rule, or its number and a limit."""

import math
import operator
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from bilens.base.errors import UsageError
from bilens.findings.rules import changes, layers, models, tables
from bilens.findings.rules.rule import EXTREME, GROUND, OPEN, Evidence, Rule, formats
from bilens.records.audit import ReadAs
from bilens.records.common import Finding, JudgedCondition, Value
from bilens.records.view import Format

# In the order of a verdict: that in which they are written.
REGISTRY: Final[tuple[Rule, ...]] = tuple(
    found
    for module in (models, tables, layers, changes)
    for found in vars(module).values()
    if isinstance(found, Rule)
)

ANY: Final[tuple[ReadAs, ...]] = get_args(ReadAs)
# Risks that no evidence yields: `decision.py` adds them to what the rules found.
ADDED: Final = (
    Rule("no_data", lambda _: (), ANY, {}, "use", None, rank=4),
    Rule("condition", lambda _: (), ANY, formats("condition value", "text"), "use", None),
)


def judge(read_as: ReadAs, evidence: Evidence) -> tuple[Finding, ...]:
    """Return the findings of all rules on a model read so; a rule without a case is absent."""
    found = [rule.judge(evidence) for rule in REGISTRY if read_as in rule.readings]
    return tuple(finding for finding in found if finding is not None)


def find_rule(name: str, read_as: str) -> Rule | None:
    """Return the rule of a finding on a model read so; None for one that is not known."""
    known = (*REGISTRY, *ADDED)
    return next((rule for rule in known if rule.id == name and read_as in rule.readings), None)


def rules_asked_for() -> dict[str, Rule]:
    """Return the rules that a condition may name, in the order of a verdict."""
    found: dict[str, Rule] = {}
    for rule in REGISTRY:
        if rule.number is not None:
            found.setdefault(rule.id, rule)
    return found


def check_values(read_as: str, verdict: Iterable[Finding]) -> None:
    """Refuse findings that lack a number of their sentence; those of unknown rules are let in."""
    for finding in verdict:
        rule = find_rule(finding.rule, read_as)
        for name, form in ({} if rule is None else rule.values).items():
            value = finding.values.get(name)
            expected, fits = expected_type(value, form)
            if not fits:
                said = "is missing" if value is None else f"is {value!r:.40}, not {expected}"
                raise UsageError(f"audit document, verdict of {finding.rule!r}: {name!r} {said}.")


def expected_type(value: Value | None, form: Format) -> tuple[str, bool]:
    if form in ("text", "mode", "source", "kinds"):
        return "a text", isinstance(value, str)
    if form in ("number or name", "cell"):
        return "a number or a name", isinstance(value, int | str)
    if form == "count":
        return "an integer of at least 0", isinstance(value, int) and value >= 0
    return "a number", isinstance(value, int | float)


COMPARED: Final[dict[str, Callable[[float, float], bool]]] = {
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
}
GRAMMAR: Final = re.compile(r"\s*([a-z0-9_]+)\s*(?:(<=|>=|<|>)\s*(\S+?))?\s*")
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
        return (
            self.rule if self.limit is None else f"{self.rule}{self.operator}{shortest(self.limit)}"
        )


def shortest(limit: float) -> str:
    """Return a limit in as few digits as tell it from all others."""
    return f"{limit:g}" if float(f"{limit:g}") == limit else repr(limit)


def parse_conditions(texts: Sequence[str], *, data: bool, baseline: bool) -> tuple[Condition, ...]:
    """Return the conditions that texts such as "r2<0.9" or "unused_inputs" ask for."""
    if isinstance(texts, str):
        raise UsageError(f"fail_on is the text {texts!r}: pass a list of conditions, [{texts!r}].")
    given = {"data": data, "baseline": baseline}
    how = {"data": "pass data (--data)", "baseline": "pass a baseline (--baseline)"}
    found = tuple(map(parse_condition, texts))
    for condition in found:
        needs = rules_asked_for()[condition.rule].needs
        if needs is not None and not given[needs]:
            raise UsageError(f"the rule {condition.rule} needs {needs}: {how[needs]}.")
    return found


def parse_condition(text: str) -> Condition:
    match = GRAMMAR.fullmatch(text) if isinstance(text, str) else None
    if match is None:
        raise UsageError(
            f"{text!r} is no condition: write a rule, such as unused_inputs, or a rule with a "
            "limit, such as 'r2<0.9' (<, <=, > or >=)."
        )
    rule, compared, limit = match.groups()
    asked = rules_asked_for().get(rule)
    if asked is None:
        raise UsageError(
            f"there is no rule {rule!r}: choose one of {', '.join(rules_asked_for())}."
        )
    if compared is None:
        if asked.bad is None and asked.usual == "info":  # it ends so whatever it measures
            limit = 10 if asked.values[str(asked.number)] == "count" else 0.05
            raise UsageError(
                f"{rule} has no limit of its own: write one, such as '{rule}>{limit}'."
            )
        return Condition(rule)
    try:
        number = float(limit)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(f"{limit!r} in {text!r} is no finite number: write for example {rule}<1.")
    return Condition(rule, compared, number)


def condition_help() -> str:
    """Return the help text of `--fail-on`: the rules, and on which side each is bad."""
    rules = (f"{name} {one.bad or ''}".rstrip() for name, one in rules_asked_for().items())
    return (
        "Fail (exit code 1) on a rule, such as unused_inputs, or on a rule with a limit, such as "
        f"'r2<0.9'; may be given again. Rules, and their bad side: {', '.join(rules)}."
    )


def judge_conditions(
    read_as: str, conditions: Sequence[Condition], verdict: Sequence[Finding]
) -> tuple[JudgedCondition, ...]:
    """Return how each condition ended. What cannot be judged has failed: silence is no pass."""
    findings = {finding.rule: finding for finding in verdict}
    if "exact" in findings:  # a classifier of one layer that is finite and quadratic
        findings = {**IMPLIED, **findings}
    return tuple(judge_condition(read_as, item, findings.get(item.rule)) for item in conditions)


def judge_condition(read_as: str, condition: Condition, finding: Finding | None) -> JudgedCondition:
    rule = find_rule(condition.rule, read_as) or rules_asked_for()[condition.rule]
    value = None if finding is None else finding.values.get(rule.number or "")
    if finding is None or OPEN in finding.values or not isinstance(value, int | float):
        return JudgedCondition(str(condition), condition.rule, None, True)
    if condition.operator is not None and condition.limit is not None:
        value = float(finding.values.get(EXTREME, value))
        failed = COMPARED[condition.operator](value, condition.limit)
    else:
        failed = finding.outcome in ("warn", "fail") or rule.is_beyond(finding.values)
    ground = "" if failed else str(finding.values.get(GROUND, ""))
    if ground == "assumed":  # it says nothing of real inputs
        return JudgedCondition(str(condition), condition.rule, None, True, ground)
    return JudgedCondition(str(condition), condition.rule, float(value), failed, ground)
