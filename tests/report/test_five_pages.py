"""Five files that a manager is shown: what is known, what can be decided, and who can.

Damage seen to fail: `is_suspicious` that finds nothing; every comparison taken for `changed`.
"""

import pytest

from bilens.records.audit import Audit
from bilens.report.markdown import audit_markdown
from bilens.report.reports import AuditReport
from bilens.report.sections.decision_page import basis_of, because, decision_of, looked_lines
from bilens.report.terminal import verdict_lines
from bilens.report.text import LANGUAGES, load_catalogue
from layer_audit_documents import PAGES, make_page, variants
from report_documents import page_of

DECIDED = {
    "new": ("not_read", "owner_on_origin"),
    "same": ("not_read", "owner_on_origin"),
    "rounding": ("not_read", "owner_on_origin"),
    "low_rank": ("conditions", "owner_and_risk"),
    "unrelated": ("not_read", "owner_on_origin"),
}


def record_of(kind: str) -> Audit:
    return AuditReport(make_page(kind)).record


@pytest.mark.parametrize("kind", PAGES)
def test_each_of_five_files_can_be_decided_on(kind: str) -> None:
    record = record_of(kind)
    found = decision_of(record)
    assert (found.answer, found.accepted_by) == DECIDED[kind]
    assert basis_of(record) == kind
    assert record.passed is None


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("kind", PAGES)
def test_every_page_says_what_can_be_decided_and_by_whom(kind: str, lang: str) -> None:
    t, record = load_catalogue(lang), record_of(kind)
    answer, by = DECIDED[kind]
    compared = ".compared" * (answer == "not_read" and kind != "new")
    keys = (f"{answer}{compared}", f"basis.{kind}", f"accepted_by.{by}")
    page, terminal = page_of(make_page(kind), lang), "\n".join(verdict_lines(record, lang))
    for words in t.each("decision", keys):
        assert words in page
        assert words in terminal
        assert words in audit_markdown(record, lang)
    others = [t(f"decision.basis.{other}") for other in PAGES if other != kind]
    assert not [words for words in others if words in page or words in terminal]


def test_no_answers_are_asked_for_that_were_measured() -> None:
    found, t = variants(), load_catalogue("en")
    for kind, measured in (("few of identical 0", False), ("not placed, with answers", True)):
        record = AuditReport(found[kind]).record
        assert basis_of(record) == "not_placed"
        said = " ".join(because(t, record))
        assert "what was not compared" in said
        assert ("Measure the answers of both" in said) == (not measured)


def test_what_was_not_read_has_a_colour_of_its_own() -> None:
    page = page_of(make_page("new"))
    assert 'class="verdict listed"' in page
    assert page.count("--listed:") == 3  # in the light, in the dark and on paper


def test_a_page_that_is_of_no_images_speaks_of_none() -> None:
    for kind in PAGES:
        said = [
            line
            for _, lines in looked_lines(load_catalogue("en"), record_of(kind))
            for line in lines
        ]
        assert not [line for line in said if "image" in line]
