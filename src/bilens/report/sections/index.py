"""The index of many audits: a row a model, the worst first."""

from collections import Counter
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from bilens.records.decision import AuditIndex, IndexRow
from bilens.report.markup import badge, element, joined, keyed_table, section
from bilens.report.sections.decision import LOOKS, decision_of, risk_lines
from bilens.report.sections.overview import Judged, Page, document_sha256
from bilens.report.text import NONE, Catalogue, load_catalogue, percent, whole

COLUMNS: Final = "model outcome coverage risk"
SEVERITY: Final = ("unread", "do_not_use", "cannot_judge", "conditions", "use")


def index_row(record: Judged, model: str, page: str, lang: str, failed: bool) -> IndexRow:
    """Return how an audit ended, in one row."""
    t = load_catalogue(lang)
    found = decision_of(record)
    risks = [] if found.answer == "use" else [risk for risk, _ in risk_lines(t, record)]
    return IndexRow(
        model,
        found.answer,
        int(failed),
        None if record.coverage is None else record.coverage.share,
        risks[0] if risks else "",
        page=page,
        document_sha256=document_sha256(record),
    )


def ranked(rows: Iterable[IndexRow]) -> tuple[IndexRow, ...]:
    """Return rows with the worst first; those that end alike keep their order."""
    return tuple(sorted(rows, key=lambda row: SEVERITY.index(row.outcome)))


def index_page(t: Catalogue, index: AuditIndex) -> Page:
    found = Counter(row.outcome for row in index.models)
    return Page(
        keys="index",
        count=len(index.models),
        facts=[(outcome_word(t, kind), whole(found[kind])) for kind in SEVERITY],
        parts=(("models", models(t, index)),),
        limits=[t("index.limits"), t("scope.judgement")],
        title=whole(len(index.models)),
        styles=("index.css",),
    )


def models(t: Catalogue, index: AuditIndex) -> Markup:
    rows = []
    for row in index.models:
        name, word, coverage, said = row_texts(t, row)
        link = element("a", name, href=quote(row.page)) if row.page else name
        shown = "fail" if row.outcome == "unread" else LOOKS.get(row.outcome, "unknown")
        read = joined(element("span", t("index.coverage"), " ", class_="label"), coverage)
        rows.append((link, badge(t, shown, word), read, said))
    words = "model outcome risk"
    body = keyed_table(t, "index", COLUMNS, rows, words=words, class_="index")
    return section(t, "index.models", body)


def row_texts(t: Catalogue, row: IndexRow) -> tuple[str, str, str, str]:
    """Return what is said of one model, in the order of `COLUMNS`."""
    coverage = NONE if row.coverage is None else percent(row.coverage, toward=-1)
    said = row.error or row.risk or t("index.no_risk")
    return row.model, outcome_word(t, row.outcome), coverage, said


def outcome_word(t: Catalogue, outcome: str) -> str:
    return t("index.unread" if outcome == "unread" else f"decision.{outcome}")
