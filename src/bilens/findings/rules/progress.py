"""The rules that got better or worse between two audits of one model."""

import math
from collections.abc import Mapping
from typing import Final

from bilens.findings.rules.registry import find_rule
from bilens.findings.rules.rule import Rule
from bilens.records.history import UNNAMED, Change, Direction, Measured, PastAudit

SEVERITY: Final = {"pass": 0, "info": 0, "warn": 1, "fail": 2}
SAME: Final = 1e-3  # of a number: less is no change
MORE_IS_BETTER: Final = {"accuracy": 1, "r_squared": 1, "calibration": -1}  # no threshold says it
ORDER: Final[tuple[Direction, ...]] = ("worse", "unjudged", "elsewhere", "better")
Judged = Mapping[str, Measured]  # what an audit measured, by rule


def changes(
    before: PastAudit, judged: Judged, now: PastAudit, judged_now: Judged
) -> tuple[Change, ...]:
    """Return the rules whose outcome changed between two audits, the worse ones first.

    A rule got worse or better where its outcome did, or where that is the same and its number is
    known to be better on one side. Where more than the model is another (data, options, how the
    same files were read, or the baseline of a rule that needs one) it did neither: "elsewhere" says
    so, without numbers. A rule that failed and is not judged any more is neither.
    """
    found, alike = [], is_of_same_question(before, now)
    for name in sorted({*judged, *judged_now, *before.failed, *now.failed}):
        was, here = judged.get(name), judged_now.get(name)
        old, new = outcome(before, name, was), outcome(now, name, here)
        rule = find_rule(name, now.kind) if now.kind == before.kind else None
        unasked = old == "fail" and was is not None and was.outcome in ("pass", "info")
        if not new or (unasked and here is not None and not here.asked):
            direction: Direction | None = "unjudged" if SEVERITY.get(old, 0) else None
        elif SEVERITY[new] != SEVERITY.get(old, 0):
            direction = "worse" if SEVERITY[new] > SEVERITY.get(old, 0) else "better"
        else:
            direction = None if rule is None else by_number(rule, was, here)
        beside = rule is not None and rule.needs == "baseline"
        if direction in ("better", "worse"):
            same = alike and not (beside and baseline_of(before) != baseline_of(now))
            direction = direction if same else "elsewhere"
        if direction is not None:
            known = direction != "elsewhere"
            first, last = (one.value if one is not None and known else None for one in (was, here))
            found.append(Change(name, direction, before=old, now=new, was=first, value=last))
    return tuple(sorted(found, key=lambda one: ORDER.index(one.direction)))


def is_of_same_question(before: PastAudit, now: PastAudit) -> bool:
    """Tell whether two audits ask the same of two states of one model, so that it explains both.

    The same file of data is the same data, however each state reads its rows; equal files that were
    read otherwise are no other state; and models from memory have no name to be one by.
    """
    if now.model == UNNAMED:
        return False
    changed = before.weights_sha256 != now.weights_sha256 or before.files != now.files
    one_file = before.data_sha256 == now.data_sha256
    if before.identity is None or now.identity is None:
        return changed and one_file
    same_rows = before.identity.data == now.identity.data
    same_data = same_rows or (one_file and before.data_sha256 != "")
    return changed and same_data and before.identity.options == now.identity.options


def baseline_of(audit: PastAudit) -> str:
    """Return the key of the baseline of an audit; empty for none."""
    return "" if audit.identity is None else audit.identity.baseline


def outcome(audit: PastAudit, rule: str, judged: Measured | None) -> str:
    """Return how a rule ended, also as a condition; empty where it had nothing to judge."""
    if rule in audit.failed:
        return "fail"
    return "" if judged is None else judged.outcome


def by_number(rule: Rule, was: Measured | None, here: Measured | None) -> Direction | None:
    sign = better_side(rule)
    if not sign or was is None or here is None or was.value is None or here.value is None:
        return None
    if math.isclose(was.value, here.value, rel_tol=SAME):
        return None
    return "better" if sign * (here.value - was.value) > 0 else "worse"


def better_side(rule: Rule) -> int:
    """Return 1 where a larger number of a rule is better, −1 where a smaller one is, else 0."""
    if rule.needs == "baseline" or (rule.bad is not None and rule.beyond == "info"):
        return 0
    if rule.bad is not None:
        return 1 if rule.bad == "<" else -1
    return MORE_IS_BETTER.get(rule.id, 0)
