"""The page of a model's wrong answers: as its last audit lists them, with pictures."""

from typing import NamedTuple

from bilens.records import Audit, PastAudit, Performance, displayable
from bilens.report import element, grouped, load_catalogue, mistake_table, section
from bilens_explorer.folder import ServedFolder
from bilens_explorer.inside import require_found
from bilens_explorer.pages import audit_link, framed, tabs, watch
from bilens_explorer.records.models import Key, ModelPage


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
    values = {"shown": grouped(len(answers.mistakes)), "rows": grouped(answers.rows), "wrong": ""}
    key = "numbers"
    if answers.classification is not None:
        key, of_rows = "answers", answers.classification.accuracy
        values["wrong"] = grouped(of_rows.total - of_rows.right)
    link = audit_link(t, found.audit, page.model.name)
    lead = element("p", t(f"explorer.mistakes.{key}", **values), " ", link)
    listed = element("div", mistake_table(t, answers), data_view="takeTable")
    parts = (tabs(t, page, "mistakes"), section(t, "explorer.mistakes", lead, listed))
    return framed(t, page.model.name, secret, watch(t, page.digest, page.model.id), *parts)
