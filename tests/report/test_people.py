"""What people said stands in report and Markdown: as text, with who and until when.

Broken once: with an expired acceptance told as one that holds, with the label of other weights
beside an eigenvector, with texts unescaped.
"""

import pytest

from bilens.report.reports import AuditReport
from bilens.report.sections.people import people_lines, subject_name
from bilens.report.text import load_catalogue
from layer_audit_documents import variants as of_layers
from people_documents import spoken
from report_documents import make_document
from table_documents import variants as of_tables

HOSTILE = '<img src=x onerror="alert(1)">'
EN = load_catalogue("en")


def test_every_ending_of_an_acceptance_is_said() -> None:
    (_, judged), (_, labels), (_, notes) = people_lines(
        EN, AuditReport(spoken(make_document())).record
    )
    assert judged == [
        "Trigger score: Accepted until 2027-04-01. known, 2027-03-01: “known”",
        "Share of weights read: Accepted, without an end. known, 2027-03-01: “known”",
        "Difference of formula and model: Its acceptance ended on 2027-03-02 and counts no more. "
        "known, 2027-03-01: “known”",
        "Unverified layout: Accepted of another audit, with other weights, reading of them, data, "
        "baseline, options: that does not count here. Ada, 2027-03-01: “known”",
        "The model as such: Accepted, without an end, as an unchanged copy of copied: weights, "
        "reading, data and options are the same. known, 2027-03-01: “known”",
        "Accuracy: Accepted until 2027-04-01 as an unchanged copy of copied: weights, reading, "
        "data and options are the same. known, 2027-03-01: “known”",
        "Residual of eigenvalues: Rejected. known, 2027-03-01: “known”",
    ]
    assert labels[0].endswith("given when other weights were audited")
    assert labels[1] == "Class 1, positive eigenvector 1: “known” (known, 2027-03-01)"
    assert len(notes) == 10


@pytest.mark.parametrize(
    ("subject", "expected"),
    [
        ("class:1:positive:0", "Class zwei, positive eigenvector 1"),
        ("class:9:negative:1", "Class 9, negative eigenvector 2"),
        ("class:²:negative:²", "Class ², negative eigenvector ²"),
        ("class:1:upward:0", "class:1:upward:0"),
        (
            "layer:model.layers:0.mlp:3:negative:2",
            "Layer model.layers:0.mlp:3, negative eigenvector 3",
        ),
        ("column:a:b", "Column “a:b”"),
        ("rule:new", "new"),
        ("", ""),
    ],
)
def test_subjects_are_called_by_words(subject: str, expected: str) -> None:
    assert subject_name(EN, subject, ("eins", "zwei")) == expected


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_reports_of_every_kind_say_it_and_nothing_is_markup(lang: str) -> None:
    t = load_catalogue(lang)
    for report in (
        AuditReport(spoken(make_document(), HOSTILE)),
        AuditReport(spoken(next(iter(of_layers().values())), HOSTILE)),
        AuditReport(spoken(next(iter(of_tables().values())), HOSTILE)),
    ):
        page, markdown = report.to_html(lang=lang), report.to_markdown(lang=lang)
        assert t("people.heading") in page
        assert '<a href="#people">' in page
        assert "<img src=x" not in page + markdown
        assert "2027-03-01" in markdown
        silent = report.with_people(None)
        assert t("people.heading") not in silent.to_html(lang=lang)


def test_labels_stand_beside_the_eigenvectors_of_their_weights() -> None:
    page = AuditReport(spoken(make_document(), "loop of a six")).to_html()
    cards = page.split('<details class="card" id="class-')
    assert [card.count("<q>loop of a six</q>") for card in cards[1:4]] == [0, 2, 0]
    assert "<q>of other weights</q>" not in page


def test_people_stand_in_the_document() -> None:
    report = AuditReport(spoken(make_document()))
    assert AuditReport(report.to_dict()) == report
    assert report.with_people(None).to_dict()["people"] is None
