"""Page one: may the model be used, what is the risk, what next; and how three groups of rules end.

The same lines stand in the terminal and in Markdown.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, get_args

from markupsafe import Markup

from bilens.findings.rules.decision import decide
from bilens.findings.rules.rule import Group
from bilens.records.audit import Audit
from bilens.records.decision import Decision
from bilens.report.markup import badge, element, facts, heading, items, paragraph, section
from bilens.report.sections.coverage import named, summary
from bilens.report.sections.overview import (
    FindingLine,
    Judged,
    condition_lines,
    finding_line,
    finding_lines,
    rule_text,
)
from bilens.report.text import Catalogue

GROUPS: Final[tuple[Group, ...]] = get_args(Group)
LOOKS: Final = {"use": "pass", "conditions": "warn", "do_not_use": "fail"}  # else unknown
WORST: Final = ("fail", "warn", "pass", "info")
UNREAD = 3  # groups of tensors


@dataclass(frozen=True)
class GroupLine:
    """How the rules of one group ended."""

    question: str
    outcome: str  # one of ICONS
    badge: str
    text: str
    findings: list[FindingLine]


def decision_of(record: Judged) -> Decision:
    """Return the decision in a record; of one from before there was any, what it would be."""
    return decide(record) if record.decision is None else record.decision


def because(t: Catalogue, found: Decision) -> str:
    """Return why the decision is no better; nothing where it is the best."""
    known = [f"decision.because.{reason}" for reason in found.reasons]
    said = t("decision.and").join(t(key) for key in known if t.has(key))
    return t("decision.because", list=said) if said else ""


def risk_lines(t: Catalogue, record: Judged) -> Iterator[tuple[str, str]]:
    """Yield each of the largest risks in plain words, and what to do next."""
    for finding in decision_of(record).risks:
        risk, then = (rule_text(t, record.kind, finding, ending) for ending in ("risk", "next"))
        line = risk or finding_line(t, record.kind, finding).sentence
        yield line, then or t("decision.next_unknown")


def looked_lines(t: Catalogue, record: Judged) -> Iterator[tuple[str, list[str]]]:
    """Yield what was looked at, what was not, and who has to accept it."""
    found, coverage = decision_of(record), record.coverage
    looked = [] if coverage is None else [summary(t, coverage)]
    groups = () if coverage is None else coverage.groups
    names = [named(t, group) for group in groups if group.reason][:UNREAD]
    unseen = [t("decision.not_read", list=t.listing(names))] if names else []
    measured = t("decision.measured" if found.inputs else "decision.no_data", count=found.inputs)
    (looked if found.inputs else unseen).append(measured)
    if not isinstance(record, Audit) or record.triggers is None or not record.triggers.threshold:
        unseen.append(t("decision.not_searched"))
    if looked:
        yield t("decision.looked"), looked
    yield t("decision.not_looked"), [*unseen, t("decision.never")]
    yield t("decision.accepted_by"), [t(f"decision.accepted_by.{found.accepted_by}")]


def group_lines(t: Catalogue, record: Judged) -> Iterator[GroupLine]:
    """Yield the three groups of rules, each with a badge of its own."""
    every, found = finding_lines(t, record), decision_of(record)
    for group in GROUPS:
        lines = [line for line in every if line.group == group]
        lines.sort(key=lambda line: WORST.index(line.outcome))
        outcome = "unknown"
        seen = {"reading": True, "model": found.answer != "cannot_judge", "use": found.inputs > 0}
        if lines and (lines[0].outcome == "fail" or seen[group]):
            outcome = "pass" if lines[0].outcome == "info" else lines[0].outcome
        words = t.each(f"group.{group}", (outcome, f"{outcome}.text"))
        yield GroupLine(t(f"group.{group}"), outcome, words[0], words[1], lines)


def verdict(t: Catalogue, record: Judged) -> Markup:
    """Return page one: the decision for who has to take it, then the three groups."""
    found = decision_of(record)
    look = LOOKS.get(found.answer, "unknown")
    answer = badge(t, look, t(f"decision.{found.answer}"))
    said = element("strong", t(f"decision.{found.answer}.text"))
    risks = [
        element("li", element("strong", risk), " ", element("span", t("decision.next", text=then)))
        for risk, then in risk_lines(t, record)
    ]
    looked = ((term, items(texts)) for term, texts in looked_lines(t, record))
    groups = [
        element(
            "div",
            element("h3", line.question),
            paragraph(badge(t, line.outcome, line.badge), " ", line.text),
            class_=f"group {line.outcome}",
        )
        for line in group_lines(t, record)
    ]
    return section(
        t,
        "verdict",
        paragraph(answer, " ", said, class_="overall"),
        paragraph(because(t, found)),
        heading(t("decision.risks")),
        element("ol", *risks, class_="risks") if risks else paragraph(t("decision.no_risk")),
        facts(looked, "looked"),
        element("div", *groups, class_="groups"),
        class_=f"verdict {look}",
    )


def checks(t: Catalogue, record: Judged) -> Markup:
    """Return every finding in its group, and the conditions that were asked for."""
    parts: list[Markup] = []
    for line in group_lines(t, record):
        if line.findings:
            parts += [heading(line.question), listed(t, line.findings)]
    if asked := condition_lines(t, record):
        parts += [heading(t("conditions.heading")), listed(t, asked)]
    return section(t, "checks", paragraph(t("checks.lead")), *parts)


def listed(t: Catalogue, lines: Sequence[FindingLine]) -> Markup:
    rows = []
    for line in lines:
        scope = element("span", line.scope, class_="quiet scope") if line.scope else ""
        sentence = element("span", line.sentence, " " if scope else "", scope, class_="sentence")
        rows.append(element("li", badge(t, line.outcome), sentence, class_=line.outcome))
    return element("ul", *rows, class_="findings")


def decision_lines(t: Catalogue, record: Judged) -> list[str]:
    """Return the decision as lines of text, the answer first."""
    found = decision_of(record)
    answer, text = t.each("decision", (found.answer, f"{found.answer}.text"))
    lines = [t("decision.line", term=answer, text=f"{text} {because(t, found)}".strip())]
    for number, (risk, then) in enumerate(risk_lines(t, record), start=1):
        lines.append(f"{number}. {risk} {t('decision.next', text=then)}")
    for term, texts in looked_lines(t, record):
        lines.append(t("decision.line", term=term, text=t("sentence.gap").join(texts)))
    return lines
