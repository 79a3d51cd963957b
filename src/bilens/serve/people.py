"""What people say of a model, at its page: each finding with its thread, and all that was said."""

from collections.abc import Sequence

from markupsafe import Markup

from bilens.api.history import now
from bilens.findings.rules.judgements import RULE, Audited, judgements
from bilens.records.explorer import ModelPage
from bilens.records.history import Entry, PastAudit
from bilens.report.markup import badge, element, joined, page_link, paragraph, quiet, section
from bilens.report.sections.overview import FindingLine, condition_line, finding_line
from bilens.report.sections.people import judged, subject_name
from bilens.report.text import Catalogue


def findings(t: Catalogue, found: ModelPage) -> Markup:
    """Return what asks for caution in the last audit, or was judged, each with what was said."""
    last = None if found.model.changed else found.model.last
    kind, identity = ("", None) if last is None else (last.kind, last.identity)
    measured = {one.rule: one for one in found.measured if last and one.audit == last.number}
    entries = () if found.model.changed else found.entries
    standing = judgements(entries, Audited.of_past(last, measured), now()[:10])
    lines: dict[str, list[FindingLine]] = {}
    for finding in found.findings:
        lines.setdefault(finding.rule, []).append(finding_line(t, kind, finding))
    for condition in found.conditions:
        lines.setdefault(condition.rule, []).append(condition_line(t, condition))
    parts = []
    for rule in dict.fromkeys([*lines, *standing]):
        about = (paragraph(badge(t, one.outcome), " ", one.sentence) for one in lines.get(rule, ()))
        said = judged(t, *standing[rule], identity) if rule in standing else ""
        parts.append(thread(t, found, f"{RULE}{rule}", *about, judged=said))
    none = [] if parts or last is None else [element("p", t(nothing(found, last)))]
    view = {"data_view": "people", "data_key": found.model.id} if found.writable else {}
    if found.writable or any(one.subject == "model" for one in found.entries):
        parts.append(thread(t, found, "model"))
    listed = element("div", joined(*parts), **view)
    summary = page_link(t, f"/models/{found.model.id}/summary", t("explorer.summary"))
    link = [] if last is None else [element("p", summary)]
    compared = element("div", "", data_view="compareWith", data_key=found.model.id)
    return joined(compared, section(t, "explorer.findings", *link, *none, listed))


def nothing(found: ModelPage, last: PastAudit) -> str:
    """Return what to say where nothing is listed: the history knows more than what is read here."""
    of_last = (one for one in found.measured if one.audit == last.number)
    told = bool(last.failed) or any(one.outcome in ("fail", "warn") for one in of_last)
    return "explorer.findings_unread" if told else "explorer.no_finding"


def thread(
    t: Catalogue, found: ModelPage, subject: str, *about: Markup, judged: str = ""
) -> Markup:
    """Return a subject with what was said of it; a script adds buttons."""
    what = subject_name(t, subject)
    said = remarks(t, [one for one in found.entries if one.subject == subject])
    return element(
        "article",
        element("h3", what),
        *about,
        element("div", paragraph(judged, class_="because"), said, class_="thread"),
        class_="finding",
        data_subject=subject,
        data_what=what,
    )


def remarks(t: Catalogue, entries: Sequence[Entry], named: bool = False) -> Markup:
    """Return who said what and when, the last one first; `named` says of what."""
    said = (remark(t, one, named) for one in entries)
    return element("ol", *said, class_="entries") if entries else Markup()


def remark(t: Catalogue, one: Entry, named: bool) -> Markup:
    return element(
        "li",
        element("time", one.date[:10], datetime=one.date),
        " ",
        element("strong", one.author),
        " ",
        t("explorer.of", what=subject_name(t, one.subject)) if named else "",
        f"{t(f'explorer.script.said.{one.action}')} ",
        element("q", one.text) if one.text else "",
        "" if one.until is None else t("explorer.script.said.until", day=one.until),
    )


def everything(t: Catalogue, found: ModelPage) -> Markup:
    """Return all that was said of a model."""
    said = remarks(t, found.entries, named=True) or quiet(t("explorer.nobody"))
    return section(t, "explorer.people", element("div", said, data_fresh="people"))
