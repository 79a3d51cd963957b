"""The rules: one that stands is judged, asked for, checked, documented and said; conditions."""

import json
import re
from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest

import tiny
from bilens.api.audit_model import audit
from bilens.base.errors import UsageError
from bilens.findings.rules import registry
from bilens.findings.rules.changes import trigger_words
from bilens.findings.rules.registry import (
    REGISTRY,
    check_values,
    condition_help,
    judge_conditions,
    parse_conditions,
    rules_asked_for,
)
from bilens.findings.rules.rule import Evidence, Rule, Values, formats
from bilens.records.common import Finding
from bilens.report.reports import AuditReport
from bilens.report.sections.overview import FORMATS
from bilens.report.text import LANGUAGES, load_catalogue

PAGES = Path(__file__).parents[3] / "docs"
OUTCOMES = ("pass", "info", "warn", "fail")


@partial(
    Rule,
    "wide_layers",
    group="model",
    readings=("layers",),
    values=formats("value threshold", "count", of="text"),
    threshold=4,
    bad=">",
    scope="weights",
)
def wide(evidence: Evidence) -> Iterator[Values]:
    yield from ({"value": layer.d_hidden, "of": "layers"} for layer in evidence.layers)


def test_a_rule_that_is_added_is_judged_asked_for_checked_and_said(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(registry, "REGISTRY", (*REGISTRY, wide))
    for lang, sentence in (("en", "Up to {value} {of} units."), ("ja", "最大 {value} {of}。")):
        monkeypatch.setitem(load_catalogue(lang).sentences, "rule.wide_layers.warn", sentence)
    assert "wide_layers" in condition_help()
    report = audit(tiny.classifier(n_layers=2), null_samples=3, fail_on=["wide_layers>5"])
    hidden = report.record.layers.readings[0].d_hidden
    values = {"value": hidden, "threshold": 4, "of": "layers"}
    assert report.record.verdict[-1] == Finding("wide_layers", "warn", values)
    assert report.failed_rules == ("wide_layers>5",)
    assert f"Up to {hidden} layers units." in report.to_html()
    assert f"Up to {hidden} layers units." in report.to_markdown()
    assert f"最大 {hidden} layers。" in report.to_html(lang="ja")
    assert f"最大 {hidden} layers。" in report.to_markdown(lang="ja")
    document = report.to_dict()
    del document["verdict"][-1]["values"]["of"]
    with pytest.raises(UsageError, match="verdict of 'wide_layers': 'of' is missing"):
        AuditReport(document)


def test_without_it_there_is_no_such_rule() -> None:
    assert "wide_layers" not in rules_asked_for()
    with pytest.raises(UsageError, match="there is no rule 'wide_layers'"):
        audit(tiny.classifier(n_layers=2), null_samples=3, fail_on=["wide_layers"])


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("rule", REGISTRY, ids=lambda rule: f"{rule.id}-{rule.readings[0]}")
def test_every_rule_has_sentences_and_a_scope_in_both_languages(rule: Rule, lang: str) -> None:
    t = load_catalogue(lang)
    start = f"rule.{rule.sentences or rule.id}."
    said = {key.removeprefix(start) for key in t.sentences if key.startswith(start)}
    assert {name.split("_")[0] for name in said} <= {*OUTCOMES, "risk", "next", "title"}
    assert said
    if rule.scope:
        assert t.has(f"rule.scope.{rule.scope}")
    assert {*rule.values.values()} <= {*FORMATS, "text", "mode", "source", "kinds"}
    assert rule.number is None or rule.number in rule.values


def test_ids_are_told_apart_by_the_kind_of_document() -> None:
    pairs = [(rule.id, kind) for rule in REGISTRY for kind in rule.readings]
    assert len(pairs) == len(set(pairs))


def test_numbers_of_an_unknown_rule_are_let_in_and_those_of_a_known_one_checked() -> None:
    check_values("classes", [Finding("later", "warn", {"x": 1})])
    shares = {"value": 0.5, "low": 0.1, "high": 0.9, "plain": 0.1}
    known = Finding("accuracy", "info", {**shares, "total": -1})
    with pytest.raises(UsageError, match="'total' is -1, not an integer of at least 0"):
        check_values("classes", [known])


def test_the_page_has_every_rule_that_can_be_asked_for() -> None:
    pages = "".join((PAGES / name).read_text("utf-8") for name in ("rules.md", "tables_report.md"))
    pages += (PAGES / "tables.md").read_text("utf-8")
    assert [name for name in rules_asked_for() if f"`{name}`" not in pages] == []
    rows = [line.split("`")[1] for line in pages.splitlines() if line.startswith("| `")]
    named = {rule.id for rule in REGISTRY} & {*rows}
    assert sorted(named - {*rules_asked_for()}) == []


VERDICT = [
    Finding("r2", "pass", {"value": 0.95, "threshold": 0.9}),
    Finding("dead_units", "warn", {"value": 3, "threshold": 0}),
    Finding("unused_inputs", "info", {"value": 2, "threshold": 0}),
    Finding("similarity", "pass", {"value": 0.995, "threshold": 0.99}),
]


def failed(*texts: str) -> list[bool]:
    conditions = parse_conditions(texts, data=True, baseline=True)
    return [item.failed for item in judge_conditions("layers", conditions, VERDICT)]


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
    (item,) = judge_conditions("layers", conditions, VERDICT)
    assert (item.value, item.failed, item.condition) == (None, True, "huge_norm>9")


def test_an_exact_classifier_is_quadratic_and_finite() -> None:
    conditions = parse_conditions(["r2<0.9", "non_finite"], data=False, baseline=False)
    exact = [Finding("exact", "pass", {"error": 1e-7, "inputs": 9})]
    assert [item.failed for item in judge_conditions("classes", conditions, exact)] == [
        False,
        False,
    ]


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("speed", "there is no rule 'speed': choose one of coverage, layout, exact, "),
        ("r2<", "is no condition"),
        ("r2=0.9", "is no condition"),
        ("r2<x", "is no finite number"),
        ("r2<nan", "is no finite number"),
        ("r2<inf", "is no finite number"),
        ("", "is no condition"),
        ("R2", "is no condition"),
        ("similarity<0.9", "the rule similarity needs baseline: pass a baseline (--baseline)"),
        ("accuracy<0.9", "the rule accuracy needs data: pass data (--data)"),
    ],
)
def test_what_is_no_condition_is_refused(text: str, words: str) -> None:
    with pytest.raises(UsageError) as caught:
        parse_conditions([text], data=False, baseline=False)
    assert words in str(caught.value)


def test_one_text_is_not_a_list() -> None:
    with pytest.raises(UsageError, match=r"pass a list of conditions, \['r2'\]"):
        parse_conditions("r2", data=False, baseline=False)


def test_every_rule_can_be_named_that_can_fail() -> None:
    """Broken once: with changed_answers, or calibration, no audit ever failed."""
    limits = {"calibration": ">0.05", "few_directions": ">10"}
    asked = [f"{name}{limits.get(name, '')}" for name in rules_asked_for()]
    assert len(parse_conditions(asked, data=True, baseline=True)) == len(rules_asked_for())
    for name, limit in limits.items():
        with pytest.raises(UsageError, match=f"write one, such as '{name}{limit}'"):
            parse_conditions([name], data=True, baseline=True)
    (asked_for,) = parse_conditions(["changed_answers"], data=True, baseline=True)
    for value, fails in ((0.2, True), (0.0, False)):
        found = Finding("changed_answers", "info", {"value": value, "count": 2, "total": 10})
        assert judge_conditions("columns", [asked_for], [found])[0].failed == fails


def test_a_case_that_asks_for_caution_is_told_before_a_larger_number_that_passes() -> None:
    """Broken once: the largest share of an input, below its null, hid one above its own."""

    def measure(_: Evidence) -> Iterator[Values]:
        yield {"value": 9, "of": "a", "outcome": "pass"}
        yield from ({"value": value, "of": "b"} for value in (5, 7, 3))

    assert replace(wide, measure=measure).judge(Evidence()) == Finding(
        "wide_layers", "warn", {"value": 7, "threshold": 4, "of": "b", "extreme": 9}
    )


@pytest.mark.parametrize("lang", LANGUAGES)
def test_the_rates_that_trigger_words_tells_are_those_of_the_measured_page(lang: str) -> None:
    """Broken once: 14 found in one language."""
    result = json.loads((PAGES / "benchmarks" / "adapters.json").read_text("utf-8"))
    judged = [row for row in result["rows"] if row["split"] == "judged" and row["works"]]
    limit = trigger_words.threshold
    rates = []
    for planted in (True, False):
        scores = [row["score"] for row in judged if bool(row["spec"]["trigger"]) is planted]
        rates += [sum(score > limit for score in scores), len(scores)]
    for outcome in ("pass", "info"):
        sentence = load_catalogue(lang).sentences[f"rule.trigger_words.{outcome}"]
        assert sorted(map(int, re.findall(r"\d+", sentence))) == sorted(rates)


def test_a_limit_is_compared_with_the_worst_number_of_all_cases() -> None:
    rule = next(one for one in registry.REGISTRY if one.id == "dominant_inputs")
    cases = [
        {"value": 0.2, "null": 0.3, "input": 0, "layers": "a", "outcome": "pass"},
        {"value": 0.12, "null": 0.05, "input": 1, "layers": "b", "outcome": "warn"},
    ]
    finding = replace(rule, measure=lambda _: cases).judge(Evidence())
    assert finding is not None
    assert (finding.outcome, finding.values["layers"]) == ("warn", "b")
    asked = (registry.parse_condition("dominant_inputs>0.15"),)
    (found,) = registry.judge_conditions("layers", asked, [finding])
    assert (found.failed, found.value) == (True, 0.2)
