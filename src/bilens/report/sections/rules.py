"""The rules of a verdict as sentences, with what each holds for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from typing import Final

from bilens.findings.rules.registry import find_rule
from bilens.findings.rules.rule import Format
from bilens.records.common import Value
from bilens.report.catalogue import Catalogue
from bilens.report.numbers import fixed, percent, quantity, scientific, whole


def points(share: float) -> str:
    """Return a share of one in percentage points, without a sign for them."""
    return fixed(100 * share, 1)


FORMATS: Final[dict[Format, Callable[[float], str]]] = {
    "count": whole,
    "whole": whole,
    "percent": percent,
    "percent0": partial(percent, digits=0),
    "points": points,
    "fixed1": partial(fixed, digits=1),
    "fixed2": fixed,
    "fixed3": partial(fixed, digits=3),
    "fixed5": partial(fixed, digits=5),
    "quantity": quantity,
    "scientific": scientific,
}


def rule_sentence(
    t: Catalogue, kind: str, name: str, outcome: str, values: Mapping[str, Value]
) -> str:
    """Return a finding in words; one of an unknown rule as its name and numbers."""
    rule = find_rule(name, kind)
    key = "" if rule is None else rule.sentence_key(outcome, values)
    if rule is None or not t.has(key):
        return f"{name}: " + ", ".join(f"{number} = {value}" for number, value in values.items())
    return t(key, **{each: shown(t, form, values[each]) for each, form in rule.values.items()})


def rule_scope(t: Catalogue, kind: str, name: str) -> str:
    """Return what a rule holds for; empty for a rule that says so itself."""
    rule = find_rule(name, kind)
    return "" if rule is None or not rule.scope else t(f"rule.scope.{rule.scope}")


def shown(t: Catalogue, form: Format, value: Value) -> str:
    """Return one value of a rule as a reader sees it."""
    if not isinstance(value, str):
        return FORMATS[form](value)
    key = f"layers.difference.mode.{value}"
    return t(key) if form == "mode" and t.has(key) else value
