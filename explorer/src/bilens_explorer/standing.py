"""How a model stands, in the words of every page: what lies there now, and who approved it."""

from collections.abc import Sequence

from markupsafe import Markup

from bilens.records import FileDifference
from bilens.report import LOOKS, Catalogue, badge, element, joined, paragraph, quiet, title_of
from bilens_explorer.records.models import ModelRow, ReportRow

NAMED = 3  # files that differ, and are named


def decision(t: Catalogue, answer: str) -> Markup:
    return badge(t, LOOKS.get(answer, "unknown"), t(f"decision.{answer}"))


def sign(t: Catalogue, row: ModelRow) -> Markup:
    """Return the decision on what lies there; where there is none, what there is instead."""
    if row.answered is not None:
        return decision(t, row.answered.answer)
    return element("strong", t(f"explorer.state_of.{row.state}"))


def standing(t: Catalogue, row: ModelRow) -> str:
    """Return in a sentence what lies there, held against what was audited last."""
    if row.last is None:
        return t("explorer.standing.never")
    told = {"number": row.last.number, "day": row.last.date[:10]}
    return t(
        f"explorer.standing.{'row' if row.last.unread else row.state}",
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
        rules.setdefault((one.author, one.until, one.model), []).append(title_of(t, one.rule))
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
    words = standing(t, row)
    told = quiet(words) if row.answered else paragraph(words, class_="callout")
    return joined(paragraph(sign(t, row), class_="overall"), told, *people)


def paper(t: Catalogue, row: ReportRow) -> str:
    """Name the origin of a report in the folder: an audit of the history, or a file of others."""
    return t(f"explorer.paper.{row.state}", number=row.audit)
