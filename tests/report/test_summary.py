"""The summary of an audit is one A4 page, whole, in both languages, whatever its names.

Broken once: with plots that keep their size, with texts of any length, with names unescaped.
"""

import re
from typing import Any

import pytest

import layer_audit_documents
import table_documents
from bilens.report.reports import AuditReport
from bilens.report.summary import render_summary
from bilens.report.text import load_catalogue
from chromium import needs_browser
from people_documents import entry, spoken
from report_documents import make_document, variants

HOSTILE = '<img src=x onerror="alert(1)">'
LONG = "w" * 150 + " 長い名前" * 40
PAGE = re.compile(rb"/Type\s*/Page\b")
CUT = """() => {
    const sheet = document.querySelector(".sheet"), foot = sheet.querySelector("dl");
    return sheet.scrollHeight > sheet.clientHeight + 1
        || foot.getBoundingClientRect().bottom > sheet.getBoundingClientRect().bottom + 1;
}"""
AUDITS = (
    *map(AuditReport, variants().values()),
    *map(AuditReport, layer_audit_documents.variants().values()),
    *map(AuditReport, table_documents.variants().values()),
    AuditReport(spoken(make_document(names=[LONG, HOSTILE, "c"]), LONG[:100])),
)


@needs_browser
@pytest.mark.parametrize("name", ["mnist", LONG])
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_it_is_one_page_and_nothing_is_cut(browser: Any, lang: str, name: str) -> None:
    page = browser.new_page(viewport={"width": 703, "height": 1032})
    page.emulate_media(media="print")
    for report in AUDITS:
        page.set_content(render_summary(report.record, name, lang))
        assert not page.evaluate(CUT)
    for report in AUDITS[:: len(AUDITS) // 4]:
        page.set_content(render_summary(report.record, name, lang))
        assert len(PAGE.findall(page.pdf(prefer_css_page_size=True))) == 1
    page.close()


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_it_says_what_the_report_says(lang: str) -> None:
    t = load_catalogue(lang)
    for report in AUDITS:
        page, whole = render_summary(report.record, "m", lang), report.to_html(lang=lang)
        sentences = re.findall(r"<li>(.*?)</li>", page.split('class="risks"')[1].split("</ol>")[0])
        assert len(sentences) == 3
        marked = t("decision.next", text="").strip()
        for part in (part for one in sentences for part in one.split(marked)):
            assert part.strip() in re.sub(r"<[^>]+>", "", whole) or part.strip() in whole


def test_nothing_that_changed_draws_no_map() -> None:
    document = layer_audit_documents.make_layer_audit() | {
        "difference": layer_audit_documents.every_change()
    }
    whole = document["difference"]["whole"]
    assert whole["changed"]
    assert "<figcaption>" in render_summary(AuditReport(document).record, "m")
    whole["changed"] = []
    assert render_summary(AuditReport(document).record, "m")


def test_who_accepted_what_and_texts_of_others_are_text() -> None:
    document = spoken(make_document(), HOSTILE)
    page = render_summary(AuditReport(document).record, HOSTILE)
    assert "Trigger score: Accepted until 2027-04-01." in page
    assert "Difference of formula and model: Its acceptance ended on 2027-03-02" in page
    assert "<img src=x" not in page
    many = [entry(subject=f"rule:{rule}") for rule in "abcdefg"]
    people = document["people"] | {"entries": [one.fields() for one in many]}
    assert "2 more" in render_summary(AuditReport(document | {"people": people}).record, "m")
    assert "No finding was accepted" in render_summary(AuditReport(make_document()).record, "m")
