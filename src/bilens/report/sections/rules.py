"""The rules on weights, layers and differences, each as one sentence with what it holds for."""

from __future__ import annotations

from typing import Any

from bilens.report.catalogue import Catalogue
from bilens.report.numbers import fixed, percent, quantity, whole
from bilens.report.rules_document import RULE_SCOPES, rule_values

SHARES = {
    "dominant_inputs": ("value", "null", "threshold"),
    "low_rank": ("value", "threshold"),
    "change": ("value", "threshold"),
    "concentrated_change": ("value", "threshold"),
}
THREE = ("r2", "duplicate_units")
FIVE = ("similarity",)


def rule_sentence(t: Catalogue, rule: str, outcome: str, values: dict[str, Any]) -> str | None:
    """Return a finding in words; None where there are none for it."""
    names, key = rule_values(rule), f"layers.verdict.{rule}.{outcome}"
    if names is None:
        return None
    if rule == "r2" and values["approximate"] == 0:
        key += "_exact"
    if not t.has(key):
        return None
    words = {name: shown(rule, name, values[name]) for name in names}
    if rule == "concentrated_change":
        mode = f"layers.difference.mode.{values['mode']}"
        words["mode"] = t(mode) if t.has(mode) else values["mode"]
    return t(key, **words)


def rule_scope(t: Catalogue, rule: str) -> str:
    """Return what a rule holds for; empty for a rule that says so itself."""
    return t(f"layers.scope.{RULE_SCOPES[rule]}") if rule in RULE_SCOPES else ""


def shown(rule: str, name: str, value: float | str) -> str:
    """Return one value of a rule as a reader sees it."""
    if isinstance(value, str):
        return value
    if name in SHARES.get(rule, ()):
        return percent(value)
    if isinstance(value, int):
        return whole(value)
    if rule in FIVE:
        return fixed(value, 5)
    return fixed(value, 3) if rule in THREE else quantity(value)
