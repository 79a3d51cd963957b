"""The verdict: one overall sentence, each finding and condition, and what they rest on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final, TypeAlias

from markupsafe import Markup

from bilens.findings.rules.registry import find_rule
from bilens.findings.rules.rule import Format
from bilens.records.audit import Audit
from bilens.records.common import Finding, Value
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.report.charts.spectra import accuracy_bar
from bilens.report.markup import (
    ICONS,
    Column,
    badge,
    boxed,
    callout,
    element,
    heads,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.text import Catalogue, fixed, percent, points, quantity, scientific, whole

Judged: TypeAlias = Audit | LayerAudit | TableAudit
OVERALL = {"audit": "overall", "layer_audit": "layers.overall", "table": "table.overall"}
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


@dataclass(frozen=True)
class FindingLine:
    """One finding, or one condition, in words."""

    outcome: str  # one of ICONS
    sentence: str
    scope: str = ""  # what it holds for


def mark(t: Catalogue, outcome: str) -> str:
    """Return an outcome as a sign and a word."""
    return f"{ICONS[outcome]} {t(f'outcome.{outcome}')}"


def overall_outcome(record: Judged) -> str:
    """Return "pass", "warn" or "fail" for the record as a whole."""
    outcomes = [finding.outcome for finding in record.verdict]
    if not record.passed or "fail" in outcomes:
        return "fail"
    return "warn" if "warn" in outcomes else "pass"


def overall_sentence(t: Catalogue, record: Judged) -> str:
    """Return the verdict as a whole in words."""
    if any(item.failed for item in record.conditions or ()):
        return t("overall.conditions")
    return t(f"{OVERALL[record.kind]}.{overall_outcome(record)}")


def finding_lines(t: Catalogue, record: Judged) -> list[FindingLine]:
    """Return the findings in the order of the record."""
    return [finding_line(t, record.kind, finding) for finding in record.verdict]


def finding_line(t: Catalogue, kind: str, finding: Finding) -> FindingLine:
    """Return a finding in words; one of an unknown rule as its name and numbers."""
    rule, values = find_rule(finding.rule, kind), finding.values
    outcome = finding.outcome if finding.outcome in ICONS else "info"
    key = "" if rule is None else rule.sentence_key(outcome, values)
    scope = "" if rule is None or not rule.scope else t(f"rule.scope.{rule.scope}")
    if rule is None or not t.has(key):
        numbers = ", ".join(f"{number} = {value}" for number, value in values.items())
        return FindingLine(outcome, f"{finding.rule}: {numbers}", scope)
    shown = {each: shown_value(t, form, values[each]) for each, form in rule.values.items()}
    return FindingLine(outcome, t(key, **shown), scope)


def shown_value(t: Catalogue, form: Format, value: Value) -> str:
    """Return one value of a rule as a reader sees it."""
    if not isinstance(value, str):
        return FORMATS[form](value)
    key = f"layers.difference.mode.{value}"
    return t(key) if form == "mode" and t.has(key) else value


def condition_lines(t: Catalogue, record: Judged) -> list[FindingLine]:
    """Return each condition as a finding; none where no condition was asked for."""
    lines = []
    for item in record.conditions or ():
        outcome = "fail" if item.failed else "pass"
        key, value = "undecided", ""
        if item.value is not None:
            key, value = outcome, quantity(item.value, 4)
        sentence = t(f"conditions.{key}", condition=item.condition, value=value)
        lines.append(FindingLine(outcome, sentence))
    return lines


def verdict(t: Catalogue, record: Judged) -> Markup:
    """Return the verdict as a section."""
    outcome, asked = overall_outcome(record), condition_lines(t, record)
    whole_sentence = element("strong", overall_sentence(t, record))
    parts = [
        paragraph(badge(t, outcome), " ", whole_sentence, class_="overall"),
        listed(t, finding_lines(t, record)),
    ]
    if asked:
        head = element("h3", t("conditions.heading"), class_="asked")
        parts += [head, listed(t, asked)]
    return section(t, "verdict", *parts, class_=f"verdict {outcome}")


def listed(t: Catalogue, lines: Sequence[FindingLine]) -> Markup:
    """Return findings as a list with a mark each."""
    rows = []
    for line in lines:
        scope = element("span", line.scope, class_="quiet scope") if line.scope else ""
        sentence = element("span", line.sentence, " " if scope else "", scope, class_="sentence")
        rows.append(element("li", badge(t, line.outcome), sentence, class_=line.outcome))
    return element("ul", *rows, class_="findings")


def exactness(t: Catalogue, record: Audit) -> Markup:
    """Return the differences between model and formula, and whether spectra are complete."""
    rows = []
    for item in record.exactness:
        key = f"exactness.{item.precision}"
        rows.append(
            (
                t(key) if t.has(key) else item.precision,
                scientific(item.largest_error),
                scientific(item.relative_error),
                scientific(item.tolerance, 0),
                badge(t, "pass" if item.passed else "fail"),
            )
        )
    columns = heads(
        *t.each("exactness", ("precision", "largest", "relative", "tolerance")),
        Column(t("exactness.result"), numeric=False),
    )
    worst = scientific(max(reading.largest_residual for reading in record.classes))
    names = [reading.name for reading in record.classes if not reading.complete]
    if names:
        complete = t("exactness.incomplete", names=t.listing(names), residual=worst)
    else:
        complete = t("exactness.complete", inputs=whole(record.model.d_input), residual=worst)
    return section(
        t,
        "exactness",
        paragraph(t("exactness.lead", inputs=whole(record.exactness[0].num_inputs))),
        table(t, t("exactness.caption"), columns, rows),
        paragraph(complete),
    )


def accuracy(t: Catalogue, record: Audit) -> Markup:
    """Return accuracy, interval and source; a remark if no data were given."""
    share, data = record.accuracy, record.data
    if share is None:
        return section(t, "accuracy", boxed(t("accuracy.none")))
    low, high = percent(share.low), percent(share.high)
    right = t("accuracy.right", right=whole(share.right), total=whole(share.total))
    numbers = element("strong", percent(share.value)), " ", element("span", right)
    bar = accuracy_bar(t, share.value, share.low, share.high)
    drawing = element("div", bar, quiet(t("accuracy.interval", low=low, high=high)))
    parts = [element("div", paragraph(*numbers, class_="big"), drawing, class_="accuracy")]
    if data is not None:
        if data.source_kind == "embedded":
            parts.append(callout(t, "accuracy.embedded"))
        if source := data.source.strip().rstrip("."):
            parts.append(quiet(t("accuracy.source", source=source)))
    return section(t, "accuracy", *parts)


def guide(t: Catalogue) -> Markup:
    """Return how the pictures of an audit are to be read."""
    parts = (
        element("li", element("strong", t(f"guide.{key}.term")), " ", t(f"guide.{key}.text"))
        for key in ("picture", "match", "sign", "null", "sum")
    )
    title = element("h2", t("guide.heading"), id="guide-heading")
    return element(
        "aside", title, element("ol", *parts), class_="guide", aria_labelledby="guide-heading"
    )
