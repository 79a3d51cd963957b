"""How a model stands, in the words of every page: what lies there, who approved it, what moved."""

from collections.abc import Sequence

from markupsafe import Markup

from bilens.findings import rules_asked_for
from bilens.records import Change, FileDifference
from bilens.report import (
    LOOKS,
    NONE,
    Catalogue,
    Column,
    Figure,
    badge,
    element,
    joined,
    paragraph,
    polyline,
    rule_number,
    section,
    table,
    title_of,
)
from bilens_explorer.records.models import ModelPage, ModelRow, ReportRow

WIDTH, HEIGHT, EDGE = 84, 20, 3  # of a line
NAMED = 3  # files that differ, and are named


def decision(t: Catalogue, answer: str) -> Markup:
    return badge(t, LOOKS.get(answer, "unknown"), t(f"decision.{answer}"))


def sign(t: Catalogue, row: ModelRow) -> Markup:
    """Return the decision on what lies there; where there is none, what there is instead."""
    if row.answered is not None:
        return decision(t, row.answered.answer)
    return element("strong", t(f"explorer.state_of.{state_told(row)}"))


def state_told(row: ModelRow) -> str:
    """Return the state of a model, or why it is not known, where that is of its last audit."""
    if row.last is not None and row.last.unread:
        return "row"
    return "weights" if row.state == "unread" and row.last and not row.last.files else row.state


def standing(t: Catalogue, row: ModelRow) -> str:
    """Return in a sentence what lies there, held against what was audited last."""
    if row.last is None:
        return t("explorer.standing.never")
    told = {"number": row.last.number, "day": row.last.date[:10]}
    return t(
        f"explorer.standing.{state_told(row)}",
        **told,
        read=row.read[:16].replace("T", " "),
        files=different_files(t, row.differences),
        decision=t(f"decision.{row.last.answer}"),
    )


def different_files(t: Catalogue, found: Sequence[FileDifference]) -> str:
    """Return which files are others than were audited, the first few by name."""
    named = [t(f"explorer.file.{one.state}", name=one.name) for one in found[:NAMED]]
    if more := len(found) - len(named):
        named.append(t("explorer.more_changes", count=more))
    return t("list.comma").join(named)


def approved(t: Catalogue, row: ModelRow) -> list[str]:
    """Return who approved what of that which lies there, and until when; a line a person."""
    rules: dict[tuple[str, str | None, str], list[str]] = {}
    for one in row.approvals:
        by = t("explorer.known_by", header=one.known_by) if one.known_by else t("explorer.typed")
        author = f"{one.author}{by.rstrip()}"
        rules.setdefault((author, one.until, one.model), []).append(title_of(t, one.rule))
    lines = []
    for (author, until, model), titles in rules.items():
        ends = t("explorer.no_end" if until is None else "explorer.until_day", day=until)
        copy = "" if model == row.name else t("explorer.as_copy", model=model)
        what = t("list.comma").join(titles)
        lines.append(t("explorer.approved_by", author=author, rules=what, until=ends, copy=copy))
    return lines


def decision_box(t: Catalogue, row: ModelRow) -> Markup:
    """Return the decision, what it is of, and who approved it."""
    lines = approved(t, row) or [t("explorer.not_approved")]
    people = [paragraph(line) for line in lines] if row.answered else []
    told = paragraph(standing(t, row), class_="quiet" if row.answered else "callout")
    return joined(paragraph(sign(t, row), class_="overall"), told, *people)


def paper(t: Catalogue, row: ReportRow) -> str:
    """Name the origin of a report in the folder: an audit of the history, or a file of others."""
    return t(f"explorer.paper.{row.state}", number=row.audit)


def spark(name: str, told: str, values: Sequence[float | None]) -> Figure | str:
    """Return numbers as a line, with gaps where there is none; nothing for fewer than two."""
    known = [value for value in values if value is not None]
    if len(known) < 2:
        return ""
    low, span, step = min(known), max(known) - min(known), (WIDTH - 4) / (len(values) - 1)
    runs: list[list[tuple[float, float]]] = [[]]
    for index, value in enumerate(values):
        if value is None:
            runs.append([])
        else:
            height = (HEIGHT - 2 * EDGE) * ((value - low) / span if span else 0.5)
            runs[-1].append((2 + step * index, HEIGHT - EDGE - height))
    lines = (polyline(run if len(run) > 1 else run * 2, "trend") for run in runs if run)
    return Figure(name, told, WIDTH, HEIGHT, Markup().join(lines), "spark")


def change_text(t: Catalogue, change: Change, kind: str) -> str:
    """Return the outcomes of a rule before and now in words, or its two numbers."""
    if change.direction == "elsewhere":
        return t("explorer.elsewhere", what=title_of(t, change.rule))
    if change.before == change.now:
        was, value = (rule_number(t, change.rule, kind, one) for one in (change.was, change.value))
    else:
        was, value = (outcome_of(t, one) for one in (change.before, change.now))
    moved = t("explorer.moved", rule=title_of(t, change.rule), was=was, value=value)
    return t(f"explorer.{change.direction}", what=moved)


def outcome_of(t: Catalogue, outcome: str) -> str:
    return t(f"outcome.{outcome}") if outcome else t("explorer.not_judged")


def change_list(
    t: Catalogue, changes: Sequence[Change], kind: str, most: int | None = None
) -> Markup:
    """Return a list of changes, at most the first `most` and the number of the others."""
    lines = [
        element("li", change_text(t, one, kind), class_=one.direction) for one in changes[:most]
    ]
    if len(changes) > len(lines):
        lines.append(element("li", t("explorer.more_changes", count=len(changes) - len(lines))))
    return element("ul", *lines, class_="changes")


def progress(t: Catalogue, found: ModelPage) -> Markup:
    """Return the changes since the audit before, and the numbers of all audits."""
    if found.model.last is None:
        return Markup()
    kind = found.model.last.kind
    changed = element("p", t(f"explorer.{'first' if len(found.audits) < 2 else 'same'}"))
    if found.model.changes:
        changed = change_list(t, found.model.changes, kind)
    values: dict[str, dict[int, float]] = {}
    for one in found.measured:
        if one.value is not None:
            values.setdefault(one.rule, {})[one.audit] = one.value
    rows = []
    for rule, by_audit in ((rule, values[rule]) for rule in rules_asked_for() if rule in values):
        line = [by_audit.get(audit.number) for audit in reversed(found.audits)]
        texts = [rule_number(t, rule, kind, value) for value in line]
        told = t("explorer.numbers_of", numbers=", ".join(texts))
        name = title_of(t, rule)
        rows.append((name, texts[-1], spark(name, told, line) or NONE))
    heads = t.each("explorer", ("rule", "number_now", "over_time"))
    columns = [Column(name, numeric=name == heads[1]) for name in heads]
    numbers = table(t, t("explorer.numbers_caption"), columns, rows) if rows else Markup()
    return section(t, "explorer.progress", changed, numbers)
