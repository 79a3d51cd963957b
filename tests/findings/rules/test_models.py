"""The verdict: each rule, each way it can end, and the numbers that go with it."""

import dataclasses
from typing import Any

import pytest
from msgspec.structs import replace

from bilens.findings.reference import POWER
from bilens.findings.rules.registry import judge
from bilens.findings.rules.rule import Evidence
from bilens.records.class_readings import ClassReading, TruncationPoint
from bilens.records.common import Exactness, Finding, NullInterval, Share
from bilens.records.image_warnings import Overfitting, Trigger, Triggers
from bilens.records.performance import Classification, Performance

SINGLE = Exactness("float32", 1e-6, 2e-7, 1e-5, 1000, True)
DOUBLE = Exactness("float64", 1e-15, 3e-16, 1e-12, 1000, True)
READING = ClassReading(
    index=0,
    name="upright",
    eigenvalues=(2.0, -1.0),
    positive=(),
    negative=(),
    upper_edge=1.0,
    lower_edge=-0.5,
    p_upper=0.01,
    p_lower=0.01,
    significant_positive=1,
    significant_negative=1,
    effective_rank=1.8,
    effective_rank_null=NullInterval(2.0, 1.9, 2.0),
    effective_rank_raw=1.7,
    effective_rank_embedding=1.6,
    frobenius_norm=5**0.5,
    linear_norm=0.0,
    constant=0.0,
    largest_residual=1e-15,
    complete=True,
)
UNREMARKABLE = Overfitting(0.01, 0.0, 0.03, 0.2, 0.6, (), "", 0.1, 0.3, POWER.overfitting)
SUSPECT = Trigger(1, 4.0, "bright_4", (2, 3, 4, 4), (0.0,) * 64, 1.5, 1, 1, (1, 0))
NO_TRIGGER = Triggers(4.0, 0.4, 0.03, (), (SUSPECT,), "", POWER.triggers)
SHARE = Share(9, 10, 0.9, 0.55, 0.9975)


def answered(share: Share) -> Performance:
    answers = Classification(share, (), (), 0.05, 0.04, 0.2, (), (), ())
    return Performance(10, (), None, answers, None, (), (), ())


WARNINGS = ("overfitting", "trigger")
CURVE = (
    TruncationPoint(0, 0.1, 0.2),
    TruncationPoint(1, 0.885, 0.9),
    TruncationPoint(2, 0.89, 0.95),
    TruncationPoint(36, 0.9, 1.0),
)


def rule(findings: tuple[Finding, ...], name: str) -> Finding:
    (found,) = (finding for finding in findings if finding.rule == name)
    return found


WHOLE = Evidence(
    exactness=(SINGLE, DOUBLE),
    classes=(READING, READING),
    performance=answered(SHARE),
    truncation=CURVE,
    enough=2,
    overfitting=UNREMARKABLE,
    triggers=NO_TRIGGER,
    input_kind="images",
    output_names=("a", "b"),
)


def judged(**changes: Any) -> tuple[Finding, ...]:
    return judge("classes", dataclasses.replace(WHOLE, **changes))


def test_the_rules_come_in_the_order_in_which_a_reader_needs_them() -> None:
    names = [finding.rule for finding in judged()]
    measured = ["accuracy", "calibration", "few_directions"]
    assert names == ["exact", "complete", *measured, "beyond_null", *WARNINGS]
    names = [finding.rule for finding in judged(performance=None, truncation=())]
    assert names == ["exact", "complete", "beyond_null", *WARNINGS]


@pytest.mark.parametrize(
    ("single", "double", "outcome"),
    [
        (1e-5, 1e-12, "pass"),  # the tolerance itself is allowed
        (1.1e-5, 1e-15, "fail"),
        (1e-7, 1.1e-12, "fail"),
        (1.0, 1.0, "fail"),
        (float("nan"), 1e-15, "fail"),
    ],
)
def test_exact_needs_both_precisions(single: float, double: float, outcome: str) -> None:
    pair = (
        replace(SINGLE, relative_error=single, passed=single <= SINGLE.tolerance),
        replace(DOUBLE, relative_error=double, passed=double <= DOUBLE.tolerance),
    )
    finding = rule(judged(exactness=pair), "exact")
    assert finding.outcome == outcome
    assert finding.values["error"] == pytest.approx(max(single, double), nan_ok=True)
    assert finding.values["inputs"] == 1000


@pytest.mark.parametrize(("plain", "outcome"), [(0.54, "info"), (0.55, "warn"), (None, "info")])
def test_accuracy_that_may_be_guessing_is_a_caution(plain: float | None, outcome: str) -> None:
    """The lower end of the interval, 0.55, has to be above the share of the largest class."""
    assert (
        rule(judged(performance=answered(replace(SHARE, plain=plain))), "accuracy").outcome
        == outcome
    )


def test_a_rank_above_its_threshold_is_a_caution() -> None:
    for rank, outcome in ((0.6, "info"), (0.61, "warn"), (1.0, "warn")):
        overfitting = replace(UNREMARKABLE, rank=rank)
        finding = rule(judged(overfitting=overfitting), "overfitting")
        power = POWER.overfitting
        worth = {"found": power.found, "false_alarms": power.false_alarms}
        shown = {"rank": rank, "low": 0.1, "high": 0.3, "threshold": 0.6}
        assert finding.outcome == outcome
        assert finding.values == shown | worth


def test_a_rare_score_is_a_caution_that_names_class_and_place() -> None:
    for p_value, outcome in ((0.03, "info"), (0.0299, "warn")):
        triggers = replace(NO_TRIGGER, p_value=p_value)
        finding = rule(judged(triggers=triggers), "trigger")
        assert finding.outcome == outcome
        assert finding.values == {
            "p_value": p_value,
            "threshold": 0.03,
            "target": "b",
            "row": 2,
            "column": 3,
            "rows": 4,
            "columns": 4,
            "won": 1,
            "sources": 1,
            "found": POWER.triggers.found,
            "false_alarms": POWER.triggers.false_alarms,
        }


def test_what_does_not_apply_is_no_rule() -> None:
    overfitting = Overfitting(None, None, None, None, None, (), "not_an_image")
    triggers = Triggers(None, None, None, (), (), "not_an_image")
    names = [finding.rule for finding in judged(overfitting=overfitting, triggers=triggers)]
    assert not {*names} & {*WARNINGS}


def test_a_score_without_a_measured_threshold_is_no_rule() -> None:
    overfitting = replace(UNREMARKABLE, score=0.5, threshold=None, reason="not_measured")
    triggers = replace(NO_TRIGGER, p_value=1e-9, threshold=None, reason="not_measured")
    names = [finding.rule for finding in judged(overfitting=overfitting, triggers=triggers)]
    assert not {*names} & {*WARNINGS}
