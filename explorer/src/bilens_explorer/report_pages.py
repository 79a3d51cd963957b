"""Whole reports, with what must be known first: how the model stands, or what paper it is."""

from dataclasses import dataclass
from typing import Any, NamedTuple

from bilens.records import Audit, PastAudit, Performance, displayable
from bilens.report import (
    Catalogue,
    SavedReport,
    element,
    load_catalogue,
    mistake_table,
    render_html,
    render_summary,
    section,
)
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import require_found
from bilens_explorer.pages import audit_link, framed, tabs, watch
from bilens_explorer.records.models import Key, ModelPage, ModelRow, Number, ReportRow, id_of
from bilens_explorer.standing import approved, paper, standing


@dataclass(frozen=True)
class ShownReport:
    """A whole report, and what is said before it: how its model stands, or what paper it is."""

    report: SavedReport[Any]
    model: ModelRow | None = None
    paper: ReportRow | None = None
    number: int = 0  # of the audit


def audit_page(served: ServedFolder, number: Number) -> ShownReport:
    """An audit of the history, and how its model stands now."""
    report = served.audit(number)
    name = next(one.model for one in served.history.audits() if one.number == number)
    return ShownReport(report, served.model(id_of(name)).model, number=number)


def report_page(served: ServedFolder, key: Key) -> ShownReport:
    """A report that lies in the folder, and what it is; of an audit also how its model stands."""
    row = served.paper(key)
    audits = [one for each in served.past().audits.values() for one in each]
    names = [one.model for one in audits if one.number == row.audit]
    model = served.model(id_of(names[0])).model if names else None
    return ShownReport(served.report(key), model, row, row.audit)


def draw_report(found: ShownReport, lang: str, _secret: str) -> str:
    return render_html(found.report.record, lang, note(load_catalogue(lang), found))


def note(t: Catalogue, found: ShownReport) -> str:
    """Return the banner above a report: whose weights it is of, and whether it was made here."""
    row, said = displayable(found.model), [] if found.paper is None else [paper(t, found.paper)]
    if row is None or row.last is None or row.last.number == found.number:
        return " ".join(said or [standing(t, row)] if row else said)
    told = {"number": row.last.number, "day": row.last.date[:10]}
    return " ".join([*said, t("explorer.standing.earlier", **told), standing(t, row)])


def last_audit(served: ServedFolder, key: Key) -> ShownReport:
    """The report of a model's last audit, and how that stands now."""
    row = served.model(key).model
    return ShownReport(served.audit(require_found(row.last).number), row)


def draw_summary(found: ShownReport, lang: str, _secret: str) -> str:
    """Return the A4 page of a model's last audit; or that what lies there was not audited."""
    row, t = found.model, load_catalogue(lang)
    assert row is not None, "it is the summary of a model"
    stands = row.answered is not None
    people = approved(t, row) or ([t("explorer.not_approved")] if stands else [])
    lines = [standing(t, row), *people]
    record = found.report.record
    return render_summary(record, row.name, lang, displayable(lines), stands=stands)


class WrongAnswers(NamedTuple):
    """A model, and how its last audit found its answers."""

    page: ModelPage
    audit: PastAudit
    performance: Performance


def wrong_answers(served: ServedFolder, key: Key) -> WrongAnswers:
    """Return the answers of a model as its last audit judged them; MissingError without any."""
    page = served.model(key)
    audit = require_found(page.model.answered if "mistakes" in page.views else None)
    record: Audit = served.audit(audit.number).record
    return WrongAnswers(page, audit, require_found(record.performance))


def mistakes_page(found: WrongAnswers, lang: str, secret: str) -> str:
    """Return the wrong answers as a table, which a script sorts."""
    t, page, answers = load_catalogue(lang), displayable(found.page), displayable(found.performance)
    link = element("p", audit_link(t, found.audit, page.model.name))
    lead, listed = mistake_table(t, answers)
    view = element("div", listed, data_view="takeTable")
    parts = (tabs(t, page, "mistakes"), section(t, "explorer.mistakes", lead, link, view))
    return framed(t, page.model.name, secret, watch(t, page.digest, page.model.id), *parts)
