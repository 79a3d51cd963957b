"""Conditions: what can be written, what it compares, and that nothing passes in silence."""

import pytest

from bilens.base.errors import UsageError
from bilens.findings.rules.registry import judge_conditions, parse_conditions, rules_asked_for
from bilens.records.common import Finding

VERDICT = [
    Finding("r2", "pass", {"value": 0.95, "threshold": 0.9}),
    Finding("dead_units", "warn", {"value": 3, "threshold": 0}),
    Finding("unused_inputs", "info", {"value": 2, "threshold": 0}),
    Finding("similarity", "pass", {"value": 0.995, "threshold": 0.99}),
]


def failed(*texts: str) -> list[bool]:
    conditions = parse_conditions(texts, data=True, baseline=True)
    return [item.failed for item in judge_conditions("layer_audit", conditions, VERDICT)]


@pytest.mark.parametrize(
    ("text", "fails"),
    [
        ("r2<0.95", False),
        ("r2<=0.95", True),
        ("r2 < 0.96", True),
        ("r2>0.95", False),
        ("r2>=.95", True),
        ("r2", False),
        ("dead_units", True),
        ("dead_units>3", False),
        ("unused_inputs", True),
        (" similarity<9.9e-1 ", False),
    ],
)
def test_a_condition_holds_or_not(text: str, fails: bool) -> None:
    assert failed(text) == [fails]


def test_what_cannot_be_judged_has_failed() -> None:
    conditions = parse_conditions(["huge_norm>9"], data=False, baseline=False)
    (item,) = judge_conditions("layer_audit", conditions, VERDICT)
    assert (item.value, item.failed, item.condition) == (None, True, "huge_norm>9")


def test_an_exact_classifier_is_quadratic_and_finite() -> None:
    conditions = parse_conditions(["r2<0.9", "non_finite"], data=False, baseline=False)
    exact = [Finding("exact", "pass", {"float32": 1e-7, "float64": 1e-16, "inputs": 9})]
    assert [item.failed for item in judge_conditions("audit", conditions, exact)] == [False, False]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed", "there is no rule 'speed': choose one of exact, complete, "),
        ("r2<", "is no condition"),
        ("r2=0.9", "is no condition"),
        ("r2<x", "is no finite number"),
        ("r2<nan", "is no finite number"),
        ("r2<inf", "is no finite number"),
        ("", "is no condition"),
        ("R2", "is no condition"),
        ("similarity<0.9", "the rule similarity needs baseline: pass a baseline (--baseline)"),
        ("accuracy<0.9", "the rule accuracy needs data: pass data (--data-dir, or --table)"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_conditions([text], data=False, baseline=False)
    assert words in str(caught.value)


def test_one_text_is_not_a_list() -> None:
    with pytest.raises(UsageError, match=r"pass a list of conditions, \['r2'\]"):
        parse_conditions("r2", data=False, baseline=False)


def test_every_rule_can_be_named() -> None:
    assert len(parse_conditions(rules_asked_for(), data=True, baseline=True)) == len(
        rules_asked_for()
    )
