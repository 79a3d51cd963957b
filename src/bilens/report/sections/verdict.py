"""The verdict: one overall sentence, each finding and condition, and what they rest on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

from markupsafe import Markup

from bilens.records.audit import Audit
from bilens.records.common import Finding, JudgedCondition
from bilens.records.layer_audit import LayerAudit
from bilens.records.table_audit import TableAudit
from bilens.report.blocks import (
    ICONS,
    Column,
    badge,
    callout,
    paragraph,
    quiet,
    section,
    table,
)
from bilens.report.catalogue import Catalogue
from bilens.report.charts.accuracy import accuracy_bar
from bilens.report.numbers import percent, quantity, scientific, whole
from bilens.report.sections.rules import rule_scope, rule_sentence
from bilens.report.svg import element

Judged: TypeAlias = Audit | LayerAudit | TableAudit
OVERALL = {"audit": "overall", "layer_audit": "layers.overall", "table": "table.overall"}


@dataclass(frozen=True)
class FindingLine:
    """One finding, in words."""

    outcome: str  # one of ICONS
    word: str
    sentence: str
    scope: str = ""  # what it holds for

    @property
    def icon(self) -> str:
        """The mark of the outcome."""
        return ICONS[self.outcome]


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
    """Return one finding in words."""
    outcome = finding.outcome if finding.outcome in ICONS else "info"
    sentence = rule_sentence(t, kind, finding.rule, outcome, finding.values)
    scope = rule_scope(t, kind, finding.rule)
    return FindingLine(outcome, t(f"outcome.{outcome}"), sentence, scope)


def condition_lines(t: Catalogue, record: Judged) -> list[FindingLine]:
    """Return each condition as a finding; none where no condition was asked for."""
    return [condition_line(t, item) for item in record.conditions or ()]


def condition_line(t: Catalogue, item: JudgedCondition) -> FindingLine:
    """Return one condition in words."""
    outcome = "fail" if item.failed else "pass"
    if item.value is None:
        sentence = t("conditions.undecided", condition=item.condition)
    else:
        value = quantity(item.value, 4)
        sentence = t(f"conditions.{outcome}", condition=item.condition, value=value)
    return FindingLine(outcome, t(f"outcome.{outcome}"), sentence)


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
    return section("verdict", t("verdict.heading"), *parts, class_=f"verdict {outcome}")


def listed(t: Catalogue, lines: Sequence[FindingLine]) -> Markup:
    """Return findings as a list with a mark each."""
    rows = []
    for line in lines:
        scope = element("span", line.scope, class_="quiet scope") if line.scope else ""
        sentence = element("span", line.sentence, " " if scope else "", scope, class_="sentence")
        rows.append(element("li", badge(t, line.outcome, line.word), sentence, class_=line.outcome))
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
    columns = [
        Column(t("exactness.precision"), numeric=False),
        *(Column(t(f"exactness.{key}")) for key in ("largest", "relative", "tolerance")),
        Column(t("exactness.result"), numeric=False),
    ]
    return section(
        "exactness",
        t("exactness.heading"),
        paragraph(t("exactness.lead", inputs=whole(record.exactness[0].num_inputs))),
        table(t, t("exactness.caption"), columns, rows),
        paragraph(completeness(t, record)),
    )


def completeness(t: Catalogue, record: Audit) -> str:
    """Return the sentence on whether every eigenvalue was found."""
    worst = scientific(max(reading.largest_residual for reading in record.classes))
    names = [reading.name for reading in record.classes if not reading.complete]
    if names:
        return t("exactness.incomplete", names=t.listing(names), residual=worst)
    return t("exactness.complete", inputs=whole(record.model.d_input), residual=worst)


def accuracy(t: Catalogue, record: Audit) -> Markup:
    """Return accuracy, interval and source; a remark if no data were given."""
    share, data = record.accuracy, record.data
    if share is None:
        none = paragraph(t("accuracy.none"), class_="callout")
        return section("accuracy", t("accuracy.heading"), none)
    low, high = percent(share.low), percent(share.high)
    right = t("accuracy.right", right=whole(share.right), total=whole(share.total))
    numbers = element("strong", percent(share.value)), " ", element("span", right)
    bar = accuracy_bar(t, share.value, share.low, share.high)
    drawing = element("div", bar, quiet(t("accuracy.interval", low=low, high=high)))
    parts = [
        element(
            "div",
            paragraph(*numbers, class_="big"),
            drawing,
            class_="accuracy",
        )
    ]
    if data is not None and data.source_kind == "embedded":
        parts.append(callout(t, t("accuracy.embedded.term"), t("accuracy.embedded.text")))
    source = "" if data is None else data.source.strip().rstrip(".")
    if source:
        parts.append(quiet(t("accuracy.source", source=source)))
    return section("accuracy", t("accuracy.heading"), *parts)


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
