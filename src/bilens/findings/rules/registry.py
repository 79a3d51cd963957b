"""The one list of rules: a rule that stands here is judged, shown, and can be asked for."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from bilens.base.errors import UsageError
from bilens.findings.rules import classifier, difference, layers, table
from bilens.findings.rules.rule import Evidence, Format, Kind, Rule
from bilens.records.verdict import Finding, Value

REGISTRY: Final[tuple[Rule, ...]] = (  # in the order of a verdict
    classifier.EXACT,
    table.TABLE_EXACT,
    classifier.COMPLETE,
    classifier.ACCURACY,
    table.TABLE_ACCURACY,
    classifier.FEW_DIRECTIONS,
    table.R_SQUARED,
    classifier.BEYOND_NULL,
    classifier.OVERFITTING,
    classifier.TRIGGER,
    layers.NON_FINITE,
    layers.R2,
    classifier.LAYERED_ACCURACY,
    layers.DEAD_UNITS,
    layers.DUPLICATE_UNITS,
    layers.HUGE_NORM,
    layers.UNUSED_INPUTS,
    layers.DOMINANT_INPUTS,
    layers.LOW_RANK_RULE,
    layers.UNSTABLE_DIRECTIONS,
    difference.CHANGED_LAYERS,
    difference.SIMILARITY,
    difference.CHANGE,
    difference.CONCENTRATED_CHANGE,
    table.SEEN_ROWS,
    table.SHARES,
)


def judge(kind: Kind, evidence: Evidence) -> tuple[Finding, ...]:
    """Return the findings of all rules of a kind of document; a rule without a case is absent."""
    found = [(rule.id, rule.judge(evidence)) for rule in REGISTRY if kind in rule.documents]
    return tuple(
        Finding(name, judged[0], dict(judged[1])) for name, judged in found if judged is not None
    )


def find_rule(name: str, kind: str) -> Rule | None:
    """Return the rule of a finding in a kind of document; None for one that is not known."""
    return next((rule for rule in REGISTRY if rule.id == name and kind in rule.documents), None)


def rules_asked_for() -> dict[str, Rule]:
    """Return the rules that a condition may name."""
    return {rule.id: rule for rule in reversed(REGISTRY) if rule.number is not None}


def rule_names() -> tuple[str, ...]:
    """Return the names that a condition may have, in the order of a verdict."""
    return tuple(dict.fromkeys(rule.id for rule in REGISTRY if rule.number is not None))


def check_values(kind: str, verdict: Iterable[Finding]) -> None:
    """Refuse findings that lack a number of their sentence; those of unknown rules are let in."""
    for finding in verdict:
        rule = find_rule(finding.rule, kind)
        for name, shown in ({} if rule is None else rule.values).items():
            value = finding.values.get(name)
            if not has_type(value, shown):
                said = "is missing" if value is None else f"is {value!r:.40}, not {TYPES[shown]}"
                raise UsageError(f"{kind} document, verdict of {finding.rule!r}: {name!r} {said}.")


TYPES: Final[dict[Format, str]] = {
    **dict.fromkeys(
        ("whole", "percent", "percent0", "points", "fixed1", "fixed2", "fixed3", "fixed5"),
        "a number",
    ),
    "quantity": "a number",
    "scientific": "a number",
    "count": "an integer of at least 0",
    "text": "a text",
    "mode": "a text",
}


def has_type(value: Value | None, shown: Format) -> bool:
    if shown in ("text", "mode"):
        return isinstance(value, str)
    if shown == "count":
        return isinstance(value, int) and value >= 0
    return isinstance(value, int | float)
