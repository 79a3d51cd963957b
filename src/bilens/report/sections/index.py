"""The index of many audits: a row a model, the worst first."""

from collections import Counter
from collections.abc import Iterable
from typing import Final
from urllib.parse import quote

from markupsafe import Markup

from bilens.records.decision import AuditIndex, IndexRow
from bilens.report.markup import Column, badge, element, joined, section, table
from bilens.report.sections.decision import LOOKS, decision_of, risk_lines
from bilens.report.sections.overview import Judged, Page, document_sha256
from bilens.report.text import NONE, Catalogue, load_catalogue, percent, whole

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
    heads = t.each("index", ("model", "outcome", "coverage", "risk"))
    columns = [Column(name, numeric=position == 2) for position, name in enumerate(heads)]
    rows = ([*cells(t, row)] for row in index.models)
    return section(t, "index.models", table(t, t("index.caption"), columns, rows, class_="index"))


def cells(t: Catalogue, row: IndexRow) -> tuple[Markup | str, ...]:
    link = element("a", row.model, href=quote(row.page)) if row.page else row.model
    shown = "fail" if row.outcome == "unread" else LOOKS.get(row.outcome, "unknown")
    return (
        link,
        badge(t, shown, outcome_word(t, row.outcome)),
        joined(element("span", t("index.coverage"), " ", class_="label"), coverage_text(row)),
        row.error or row.risk or t("index.no_risk"),
    )


def coverage_text(row: IndexRow) -> str:
    return NONE if row.coverage is None else percent(row.coverage, toward=-1)


def outcome_word(t: Catalogue, outcome: str) -> str:
    return t("index.unread" if outcome == "unread" else f"decision.{outcome}")
