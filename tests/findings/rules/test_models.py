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
from bilens.report.sections.overview import rule_text
from bilens.report.text import load_catalogue

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


def reading(**changes: object) -> ClassReading:
    return replace(READING, **changes)  # type: ignore[arg-type]


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
    worst = double if double / DOUBLE.tolerance > single / SINGLE.tolerance else single
    assert finding.values["error"] == pytest.approx(worst, nan_ok=True)
    assert finding.values["inputs"] == 1000


def test_complete_names_the_classes_that_are_not() -> None:
    finding = rule(judged(), "complete")
    assert (finding.outcome, finding.values) == (
        "pass",
        {"residual": 1e-15, "classes": 2, "incomplete": ""},
    )
    classes = (
        READING,
        reading(name="level", complete=False, largest_residual=0.5),
        reading(name="slanting", complete=False),
    )
    finding = rule(judged(classes=classes), "complete")
    assert (finding.outcome, finding.values) == (
        "fail",
        {"residual": 0.5, "classes": 3, "incomplete": "level, slanting"},
    )


def test_accuracy_is_reported_with_its_interval_and_not_judged() -> None:
    finding = rule(judged(), "accuracy")
    assert finding.outcome == "info"
    shares = {"value": 0.9, "low": 0.55, "high": 0.9975, "plain": 0.0}
    assert finding.values == {**shares, "total": 10}


@pytest.mark.parametrize(("plain", "outcome"), [(0.54, "info"), (0.55, "warn"), (None, "info")])
def test_accuracy_that_may_be_guessing_is_a_caution(plain: float | None, outcome: str) -> None:
    """The lower end of the interval, 0.55, has to be above the share of the largest class."""
    assert (
        rule(judged(performance=answered(replace(SHARE, plain=plain))), "accuracy").outcome
        == outcome
    )


@pytest.mark.parametrize(("enough", "accuracy"), [(0, 0.1), (2, 0.89), (36, 0.9)])
def test_few_directions_tells_the_point_that_is_enough(enough: int, accuracy: float) -> None:
    finding = rule(judged(enough=enough), "few_directions")
    assert finding.outcome == "info"
    assert finding.values == {"k": enough, "of": 36, "accuracy": accuracy, "full": 0.9}


@pytest.mark.parametrize(
    ("counts", "outcome", "values"),
    [
        # counts of both ends are added for each class: 2, 3 and 5
        (((1, 1), (3, 0), (1, 4)), "info", {"median": 3, "least": 2, "most": 5, "none": ""}),
        # 0, 1 and 0: two classes have nothing beyond the null interval
        (((0, 0), (0, 1), (0, 0)), "warn", {"median": 0, "least": 0, "most": 1, "none": "a, c"}),
    ],
)
def test_beyond_null_warns_of_classes_that_have_nothing(
    counts: tuple[tuple[int, int], ...], outcome: str, values: dict[str, object]
) -> None:
    classes = tuple(
        reading(name=name, significant_positive=positive, significant_negative=negative)
        for name, (positive, negative) in zip("abc", counts, strict=True)
    )
    finding = rule(judged(classes=classes), "beyond_null")
    assert (finding.outcome, finding.values) == (outcome, values)


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


def test_a_pattern_all_over_has_no_place_in_its_sentence() -> None:
    t, suspects = load_catalogue("en"), (replace(SUSPECT, box=None),)
    triggers = replace(NO_TRIGGER, p_value=1e-9, suspects=suspects)
    sentence = rule_text(t, "classes", rule(judged(triggers=triggers), "trigger"), "warn")
    assert sentence.startswith("A pattern all over the image raises b far more")
    assert "< 1 of 1,000 clean models" in sentence


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
