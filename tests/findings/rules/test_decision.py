"""The decision: one answer from a verdict, what was read, conditions and data.

Damage seen to fail: `cannot_judge` before `do_not_use` in the order; ENOUGH at 0; a partial reading
without data let through; risks not sorted.
"""

from typing import Any

import pytest

from bilens.findings.rules.decision import decision, passed
from bilens.records.common import Finding, JudgedCondition
from bilens.records.decision import Coverage, Decision

DATA = 100
FINE = (
    Finding("exact", "pass", {}),
    Finding("accuracy", "info", {}),
    Finding("overfitting", "info", {}),
)


def read(exact: int = 100, approximate: int = 0, unread: int = 0, **more: Any) -> Coverage:
    known = {"layout": "known", "checked_against": "its forward pass", "error": 0.0}
    known |= {"connected": True, **more}
    return Coverage(exact + approximate + unread, exact, approximate, unread, (), **known)


def failed(value: float | None) -> JudgedCondition:
    return JudgedCondition("accuracy<0.9", "accuracy", value, True)


def made(*findings: Finding, **more: Any) -> Decision:
    given = {"coverage": read(), "inputs": DATA, **more}
    read_as = given.pop("read_as", "classes")
    return decision(read_as, (*FINE, *findings), **given)


def f(rule: str, outcome: str, **values: Any) -> Finding:
    return Finding(rule, outcome, values)


REFUSED = f("r2", "warn", refused=3, of=3)
CASES: dict[str, tuple[dict[str, Any], tuple[Finding, ...], str, set[str]]] = {
    "all is well": ({}, (), "use", set()),
    "no data": ({"inputs": 0}, (), "conditions", {"no_data"}),
    "few test inputs": ({"inputs": DATA - 1}, (), "conditions", {"few"}),
    "partial": ({"coverage": read(95, unread=5)}, (), "conditions", {"partial"}),
    "unverified": (
        {"coverage": read(layout="guessed", checked_against="")},
        (),
        "conditions",
        {"partial"},
    ),
    "nothing to compare with": (
        {"coverage": read(checked_against="")},
        (),
        "conditions",
        {"partial"},
    ),
    "layers, but not what connects them": (
        {"coverage": read(connected=False)},
        (),
        "conditions",
        {"partial"},
    ),
    "approximate": ({"coverage": read(50, 50)}, (), "conditions", {"approximate"}),
    "a caution": ({}, (f("dead_units", "warn"),), "conditions", {"caution"}),
    "an unknown caution": ({}, (f("new", "warn"),), "conditions", {"caution"}),
    "partial, no data": ({"coverage": read(95, unread=5), "inputs": 0}, (), "not_read", {"unseen"}),
    "unverified, no data": (
        {"coverage": read(layout="said"), "inputs": 0},
        (),
        "not_read",
        {"unseen"},
    ),
    "less than half": ({"coverage": read(49, unread=51)}, (), "not_read", {"coverage"}),
    "half": ({"coverage": read(50, unread=50)}, (), "conditions", {"partial"}),
    "not known what was read": ({"coverage": None, "inputs": 0}, (), "not_read", {"unseen"}),
    "not exact": ({}, (f("exact", "fail"),), "cannot_judge", {"reading"}),
    "refused everywhere": ({"read_as": "layers"}, (REFUSED,), "not_read", {"refused"}),
    "refused somewhere": (
        {"read_as": "layers"},
        (f("r2", "warn", refused=1, of=3),),
        "conditions",
        {"caution"},
    ),
    "not finite": ({"read_as": "layers"}, (f("non_finite", "fail"),), "do_not_use", {"defect"}),
    "guessing": ({}, (f("accuracy", "warn"),), "do_not_use", {"guess"}),
    "guessing on few inputs": (
        {"inputs": 1},
        (f("accuracy", "warn"),),
        "conditions",
        {"guess", "few"},
    ),
    "guessing on one class": (
        {"one_class": True},
        (f("accuracy", "warn"),),
        "conditions",
        {"guess", "one_class"},
    ),
    "one class": ({"one_class": True}, (), "conditions", {"one_class"}),
    "guessing on few inputs, partial": (
        {"inputs": 1, "coverage": read(95, unread=5)},
        (f("accuracy", "warn"),),
        "cannot_judge",
        {"guess"},
    ),
    "condition": ({"conditions": (failed(0.5),)}, (), "do_not_use", {"condition"}),
    "condition without a value": ({"conditions": (failed(None),)}, (), "do_not_use", {"condition"}),
    "a met condition": (
        {"conditions": (JudgedCondition("r2<0.5", "r2", 0.9, False),)},
        (),
        "use",
        set(),
    ),
    "a condition and a wrong reading": (
        {"conditions": (failed(0.5),)},
        (f("exact", "fail"),),
        "do_not_use",
        {"condition"},
    ),
    "a defect and a small reading": (
        {"read_as": "layers", "coverage": read(10, unread=90), "inputs": 0},
        (f("non_finite", "fail"),),
        "do_not_use",
        {"defect"},
    ),
}


@pytest.mark.parametrize("name", CASES)
def test_the_answer_and_its_reasons(name: str) -> None:
    more, findings, answer, reasons = CASES[name]
    found = made(*findings, **more)
    assert (found.answer, set(found.reasons)) == (answer, reasons)
    acts = {"use": "owner", "conditions": "owner_and_risk", "not_read": "owner_on_origin"}
    assert found.accepted_by == acts.get(answer, "nobody")


@pytest.mark.parametrize("inputs", [0, DATA])
@pytest.mark.parametrize("unread", [1, 40, 99])
def test_a_partial_reading_is_never_simply_of_use(unread: int, inputs: int) -> None:
    """Also a network whose convolutions are a hundredth of its parameters."""
    found = made(coverage=read(100 - unread, unread=unread), inputs=inputs)
    assert found.answer != "use"
    assert inputs > 0 or found.answer == "not_read"


@pytest.mark.parametrize(
    ("rule", "answer"),
    [
        ("low_rank_change", "conditions"),  # somebody added something
        ("changed_files", "conditions"),
        ("concentrated_change", "conditions"),
        ("changed_tensors", "not_read"),  # as any copy in another dtype has them
        ("dead_units", "not_read"),
        ("layout", "not_read"),
        ("of a later release", "conditions"),
    ],
)
def test_what_was_not_read_is_decided_on_unless_something_suspicious_was_found(
    rule: str, answer: str
) -> None:
    found = made(f(rule, "warn"), coverage=read(10, unread=90), inputs=0, read_as="layers")
    assert found.answer == answer
    assert passed(found, (f(rule, "warn"),), read(10, unread=90)) is None
    assert "coverage" in found.reasons


def test_the_largest_risks_come_first_and_are_three() -> None:
    findings = (
        f("dead_units", "warn"),
        f("trigger", "warn"),
        f("unstable_directions", "warn"),
        f("few_directions", "info"),
    )
    found = made(*findings, inputs=0)
    assert [risk.rule for risk in found.risks] == ["no_data", "trigger", "dead_units"]
    assert found.more == 1  # unstable_directions
    twice = made(f("concentrated_change", "warn"), f("low_rank_change", "warn"), inputs=0)
    assert [risk.rule for risk in twice.risks[:2]] == ["concentrated_change", "no_data"]
    assert twice.more == 0
    changed = made(f("concentrated_change", "warn"), f("trigger", "warn"), inputs=0)
    assert [risk.rule for risk in changed.risks] == ["concentrated_change", "no_data", "trigger"]
    worse = made(*findings, f("exact", "fail"), conditions=(failed(0.5),))
    assert [risk.rule for risk in worse.risks] == ["exact", "condition", "trigger"]
    assert worse.risks[1].values == {"condition": "accuracy<0.9", "value": "0.5"}


def test_where_all_is_well_the_errors_of_its_answers_remain() -> None:
    assert [risk.rule for risk in made().risks] == ["accuracy"]


def test_a_condition_without_a_value_is_told_without_one() -> None:
    (risk, *_) = made(conditions=(failed(None),)).risks
    assert risk.values == {"condition": "accuracy<0.9", "value": "—"}
