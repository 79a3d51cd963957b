"""What is better and what is worse from one audit to the next, with one right answer each.

Broken once: with a rule that is not judged any more called better, with numbers on other data
compared, with the side of a number turned round.
"""

from typing import Any

import pytest
from msgspec import structs

from bilens.findings.rules.progress import better_side, changes
from bilens.findings.rules.registry import REGISTRY
from bilens.records.common import Identity
from bilens.records.history import Measured
from explorer_documents import past

Ending = tuple[str, float | None, bool]  # outcome, number, whether a condition asked for it


def direction(
    rule: str,
    before: Ending | None,
    now: Ending | None,
    failed: tuple[bool, bool] = (False, False),
    data: str = "",
) -> str:
    """How a rule changed; empty where it did not."""
    audits = [past(n, (rule,) * fails) for n, fails in enumerate(failed, 1)]
    audits[1] = structs.replace(audits[1], data_sha256=data)
    judged = [
        {} if one is None else {rule: Measured(n, rule, *one)}
        for n, one in enumerate((before, now), 1)
    ]
    found = changes(audits[0], judged[0], audits[1], judged[1])
    return found[0].direction if found else ""


@pytest.mark.parametrize(
    ("before", "now", "expected"),
    [
        (("info", 1.0, False), ("warn", 9.0, False), "worse"),
        (("fail", 9.0, False), ("warn", 5.0, False), "better"),
        (("warn", 9.0, False), ("info", 1.0, False), "better"),
        (("pass", 1.0, False), ("info", 1.0, False), ""),
        (None, ("fail", 9.0, False), "worse"),
        (None, ("pass", 1.0, False), ""),
        (("fail", 9.0, False), None, "unjudged"),
        (("pass", 1.0, False), None, ""),
        (("info", 0.5, False), ("info", 0.1, False), "worse"),  # a trigger gets less likely
        (("info", 0.1, False), ("info", 0.5, False), "better"),
        (("info", 1.0, False), ("info", 1.0005, False), ""),
        (("info", None, False), ("info", 1.0, False), ""),
    ],
)
def test_a_rule_gets_better_or_worse(
    before: Ending | None, now: Ending | None, expected: str
) -> None:
    failed = (before is not None and before[0] == "fail", now is not None and now[0] == "fail")
    assert direction("trigger", before, now, failed) == expected


def test_a_condition_that_is_not_asked_any_more_is_not_met_by_silence() -> None:
    asked, unasked = ("pass", 0.8, True), ("pass", 0.8, False)
    assert direction("coverage", asked, unasked, (True, False)) == "unjudged"
    assert direction("coverage", asked, ("pass", 0.95, True), (True, False)) == "better"
    assert direction("coverage", unasked, asked, (False, True)) == "worse"


def test_numbers_on_other_data_are_not_compared() -> None:
    before, now = ("info", 0.9, False), ("info", 0.8, False)
    assert direction("accuracy", before, now) == "worse"
    assert direction("accuracy", before, now, data="other") == "elsewhere"
    worse = ("warn", 0.2, False)
    assert direction("accuracy", before, worse, data="other") == "elsewhere"
    assert direction("accuracy", worse, before, data="other") == "elsewhere"
    assert direction("coverage", before, now, data="other") == "elsewhere"
    assert direction("similarity", before, now) == ""  # of another baseline, who knows


@pytest.mark.parametrize(
    ("rule", "part", "expected"),
    [
        ("accuracy", "data", "elsewhere"),
        ("accuracy", "baseline", "worse"),
        ("similarity", "baseline", "elsewhere"),
        ("similarity", "options", "elsewhere"),
        ("coverage", "data", "elsewhere"),
    ],
)
def test_what_is_measured_on_is_known_by_the_identity(rule: str, part: str, expected: str) -> None:
    # data from memory have no SHA-256 of a file; labels are a part of them
    same = Identity("ab", data="data", baseline="base")
    ended = {rule: Measured(1, rule, "info", 0.9, asked=False)}
    now = {rule: Measured(2, rule, "warn", 0.2, asked=False)}
    audits = [structs.replace(past(n), identity=same) for n in (1, 2)]
    other = structs.replace(audits[1], identity=structs.replace(same, **{part: "other"}))
    (found,) = changes(audits[0], ended, other, now)
    assert found.direction == expected
    assert (found.value is None) == (expected == "elsewhere")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({}, "worse"),
        ({"data": "cells of the other columns"}, "worse"),  # of one file, as each model reads it
        ({"data_sha256": "another file", "data": "other"}, "elsewhere"),
        ({"data_sha256": "", "data": ""}, "elsewhere"),
        ({"options": "another threshold"}, "elsewhere"),
        ({"weights_sha256": 64 * "1"}, "elsewhere"),  # nothing but the reading is another
        ({"weights_sha256": 64 * "1", "files": (("config.json", "new"),)}, "worse"),
        ({"model": "(from memory)"}, "elsewhere"),
    ],
)
@pytest.mark.parametrize("rule", ["accuracy", "r2", "coverage", "dead_units"])
def test_a_model_is_called_worse_where_it_alone_is_another(
    rule: str, change: dict[str, Any], expected: str
) -> None:
    """Seen red: "of other data" on the very same file, "worse" without a change of the model."""
    same = Identity("ab", data="rows", options="usual")
    before = structs.replace(
        past(1), identity=same, data_sha256="the file", weights_sha256=64 * "1", kind=KINDS[rule]
    )
    now = structs.replace(before, number=2, weights_sha256=64 * "2")
    parts = {key: one for key, one in change.items() if key in ("data", "options")}
    more = {key: one for key, one in change.items() if key not in parts}
    now = structs.replace(now, identity=structs.replace(same, **parts), **more)
    ended = {rule: Measured(1, rule, "info", 0.9, asked=False)}
    worse = {rule: Measured(2, rule, "warn", 0.2, asked=False)}
    (found,) = changes(before, ended, now, worse)
    assert found.direction == expected
    (found,) = changes(before, {}, now, worse)  # which was not judged before
    assert found.direction == expected


KINDS = {"accuracy": "classes", "r2": "layers", "coverage": "classes", "dead_units": "layers"}


def test_what_got_worse_comes_first() -> None:
    before = {"exact": Measured(1, "exact", "fail", 1.0, asked=False)}
    now = {
        name: Measured(2, name, "warn", 1.0, asked=False) for name in ("exact", "trigger", "layout")
    }
    found = changes(past(1, ("exact", "complete")), before, past(2), now)
    assert [(one.rule, one.direction) for one in found] == [
        ("layout", "worse"),
        ("trigger", "worse"),
        ("complete", "unjudged"),
        ("exact", "better"),
    ]


def test_a_side_is_known_where_a_threshold_asks_for_caution() -> None:
    sides = {rule.id: better_side(rule) for rule in REGISTRY}
    assert {name for name, side in sides.items() if side > 0} == {
        *("coverage", "accuracy", "r_squared", "r2", "trigger")
    }
    assert sides["low_rank"] == sides["unused_inputs"] == sides["exact"] == 0
    assert sides["overfitting"] == sides["calibration"] == -1
