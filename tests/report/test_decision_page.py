"""Page one: groups that never share a badge, and none that is kinder than what was looked at.

Damage seen to fail: a group of numbers alone called sound; whether answers were measured not asked.
"""

import re
from typing import Any

import pytest

import layer_audit_documents
import table_documents
from bilens.records.base import to_json
from bilens.records.common import Finding
from bilens.records.decision import Coverage, CoverageGroup
from bilens.report.reports import AuditReport
from bilens.report.sections.decision_page import (
    answer_text,
    because,
    decision_of,
    group_lines,
    looked_lines,
    risk_lines,
)
from bilens.report.sections.overview import finding_lines, rule_text
from bilens.report.text import LANGUAGES, load_catalogue
from report_documents import LEARNT, answered, make_document, page_of, variants

EN = load_catalogue("en")
ENDINGS = ("pass", "warn", "fail", "unknown")


def ended(document: dict[str, Any]) -> list[str]:
    return [line.outcome for line in group_lines(EN, AuditReport(document).record)]


def covered(read: int, unread: int) -> dict[str, Any]:
    """A coverage of so many parameters."""
    group = CoverageGroup("conv*.weight", 3, unread, 0, 0, "unread" if unread else "")
    counts = (read + unread, read, 0, unread)
    return to_json(Coverage(*counts, (group,), "known", "its forward pass", 0.0, True))


@pytest.mark.parametrize("lang", LANGUAGES)
def test_no_badge_is_of_two_groups_or_says_passed(lang: str) -> None:
    t = load_catalogue(lang)
    words = [t(f"group.{group}.{end}") for group in ("reading", "model", "use") for end in ENDINGS]
    assert len(set(words)) == len(words)
    assert not {"Passed", "合格", "OK"} & {*words}


def test_each_group_answers_for_itself() -> None:
    healthy = {**make_document(), "coverage": covered(100, 0)}
    assert ended(healthy) == ["pass", "pass", "warn"]  # ten inputs establish nothing
    healthy["performance"] = to_json(answered(["0", "1", "2"], 900, 1000))
    assert ended(healthy) == ["pass", "pass", "pass"]  # its numbers are neither good nor bad
    assert ended({**make_document(data=False), "coverage": covered(100, 0)})[2] == "unknown"
    assert ended(variants()["failed"])[0] == "fail"


def test_an_unchanged_model_is_no_measured_one() -> None:
    document = make_document(data=False)
    same = {"value": 0, "threshold": 0, "of": 1, "layers": ""}
    document["verdict"].append({"rule": "changed_layers", "outcome": "pass", "values": same})
    assert ended({**document, "coverage": covered(100, 0)})[2] == "unknown"


def test_what_was_hardly_read_is_not_called_sound() -> None:
    document = make_document(data=False)
    document["verdict"].append(
        {"rule": "dead_units", "outcome": "pass", "values": {"value": 0, "threshold": 0, "of": 8}}
    )
    document["verdict"][-1]["values"]["layers"] = ""
    assert ended({**document, "coverage": covered(99, 1)})[1] == "unknown"
    document["coverage"] = covered(100, 0)
    assert decision_of(AuditReport(document).record).answer == "conditions"
    assert ended(document)[1] == "pass"


def test_a_table_of_numbers_alone_is_not_called_sound() -> None:
    assert ended(table_documents.variants()["classes"]) == ["pass", "unknown", "warn"]


def test_what_was_not_looked_at_is_said() -> None:
    document = {**make_document(data=False), "coverage": covered(60, 40)}
    for search in ("triggers", "overfitting"):
        document[search] |= {"threshold": None, "reason": "not_measured"}
    looked = dict(looked_lines(EN, AuditReport(document).record))
    (read,) = looked["What was looked at"]
    assert "60.0% were read exactly" in read
    unseen = " ".join(looked["What was not looked at"])
    for words in ("no test data", "no conclusion", "lawful"):
        assert words in unseen
    (owner,) = looked["Who has to accept it"]
    assert "on where the file comes from" in owner


@pytest.mark.parametrize("lang", LANGUAGES)
def test_page_one_has_one_number_for_what_was_read(lang: str) -> None:
    """9 of 16 are 56.25 %: not 56.2 % here and 56.3 % there, and not more than was read."""
    document = {**make_document(data=False), "coverage": covered(9, 7)}
    of_part = {"value": 9 / 16, "exact": 9 / 16, "approximate": 0.0, "threshold": 0.9, "unread": 7}
    document["verdict"] = [{"rule": "coverage", "outcome": "warn", "values": of_part}]
    document["decision"] = None
    page = page_of(document, lang)
    assert page.count("56.2%") >= 4
    assert "56.3%" not in page


@pytest.mark.parametrize("lang", LANGUAGES)
def test_page_one_names_the_baseline_beside_the_model(lang: str) -> None:
    document = layer_audit_documents.make_comparison()
    document["source"] |= {"path": "runs/after", "weights_sha256": "98765" * 12}
    document["difference"]["baseline"] = {"path": "runs/before", "weights_sha256": "0123456789" * 6}
    first, _, _ = page_of(document, lang).partition("</strong>")
    assert first.index("runs/after · SHA-256 9876598765987659…") < first.index(
        "runs/before · SHA-256 0123456789012345…"
    )


def test_the_least_of_many_is_never_rounded_up() -> None:
    """R² = 0.99996 of a layer is no "at least 1.000", nor 0.89996 one that reaches 0.900."""
    document = layer_audit_documents.cautious()
    for value, shown in ((0.99996, "0.999"), (0.89996, "0.899")):
        document["verdict"][0]["values"]["value"] = value
        for outcome in ("pass", "warn"):
            document["verdict"][0]["outcome"] = outcome
            (line, *_) = finding_lines(EN, AuditReport(document).record)
            assert f" {shown}" in line.sentence


def test_the_number_of_a_condition_is_rounded_in_one_way() -> None:
    """0.81668 is 0.8167 wherever it stands, at a limit above it and at one below."""
    for condition, shown, other in (
        ("r2<0.9", "0.8167", "0.8166"),
        ("r2>0.8", "0.8167", "0.8166"),
    ):
        document = layer_audit_documents.cautious() | {"decision": None}
        asked = {"condition": condition, "rule": "r2", "value": 0.81668, "failed": True}
        page = page_of(document | {"conditions": [asked]}).partition('type="application/json"')[0]
        assert page.count(shown) == 2, "the risk and the condition"
        assert other not in page


def test_the_r_squared_of_a_table_is_rounded_in_one_way() -> None:
    document = table_documents.make_table(classes=1)
    document["performance"]["regression"]["r_squared"] = 0.81668
    for finding in document["verdict"]:
        if finding["rule"] == "r_squared":
            finding["values"]["value"] = 0.81668
    page = page_of(document).partition('type="application/json"')[0]
    assert page.count("0.816") >= 2
    assert "0.817" not in page


def test_a_tensor_that_only_one_model_has_is_no_change_of_others() -> None:
    values = {"value": 2, "of": 9, "alone": 2, "change": 0.0, "kinds": "other", "threshold": 0}
    finding = Finding("changed_tensors", "warn", values)
    assert "ΔW" not in rule_text(EN, "layers", finding, "warn")
    more = Finding("changed_tensors", "warn", {**values, "value": 3, "change": 0.5})
    assert "not zero there is 0.500" in rule_text(EN, "layers", more, "warn")


def test_risks_that_are_not_listed_are_counted_and_a_search_says_what_it_found() -> None:
    document = variants()["decided conditions"]
    assert "2 more checks ask for caution" in page_of(document)
    verdict = [one for one in document["verdict"] if one["rule"] not in ("overfitting", "trigger")]
    document["verdict"] = [*verdict, {"rule": "overfitting", "outcome": "warn", "values": LEARNT}]
    looked, unseen, *_ = (texts for _, texts in looked_lines(EN, AuditReport(document).record))
    assert any(re.search("heart: searched for. Something stood out", text) for text in looked)
    assert any(re.search("Triggers .*: searched for, nothing", text) for text in looked)
    assert any("move about" in text for text in unseen)
    document["overfitting"] |= {"score": None, "threshold": None, "reason": "unlike"}
    looked, unseen, *_ = (texts for _, texts in looked_lines(EN, AuditReport(document).record))
    assert any("heart: no conclusion" in text for text in unseen)
    assert any(re.search("Triggers .*: searched for, nothing", text) for text in looked)


def shown_page(document: dict[str, Any], lang: str = "en") -> str:
    return page_of(document, lang).partition('type="application/json"')[0]


def test_of_a_file_without_layers_nothing_is_said_of_layers_that_were_read() -> None:
    document = layer_audit_documents.unread()
    assert "layout" not in [finding["rule"] for finding in document["verdict"]]
    page = shown_page(document)
    for words in (
        "read correctly",
        "were read in this model",
        "bilinear layer is",
        "R² is of",
        "layer by layer",
        "the layers that were read",
        "of several kinds",
        "Only 0.0%",
        "approximated under an assumed input",
        "<dt>Layers</dt>",
    ):
        assert words not in page, words
    assert "What this file is" in page
    assert page.count("None of the ") >= 4  # summary, risk, because and check
    japanese = shown_page(document, "ja")
    assert "層の監査" not in japanese
    assert "このファイルは何か" in japanese


def test_of_a_file_that_is_not_opened_nothing_is_counted_and_nothing_was_searched() -> None:
    page = shown_page(layer_audit_documents.unlisted())
    assert "No weights of the model are listed" in page
    for words in ("None of the 0", "nothing suspicious was found"):
        assert words not in page, words
    assert "nothing suspicious was found" in shown_page(layer_audit_documents.unread())


def test_layers_under_an_assumed_input_are_not_called_read() -> None:
    page = shown_page(layer_audit_documents.make_page("new"))
    assert "were read in this model" not in page
    assert page.count("2 layers were approximated under an assumed input") == 2  # done, and lead
    assert "were read in this model" in shown_page(layer_audit_documents.make_layer_audit("exact"))


def test_page_one_says_what_was_done() -> None:
    record = AuditReport(layer_audit_documents.make_page("unrelated")).record
    (looked, *_) = (" ".join(texts) for _, texts in looked_lines(EN, record))
    assert record.inventory is not None
    count = record.inventory.tensors
    assert f"{count} tensors with " in looked
    assert f"{count} of {count} tensors were compared" in looked
    (then,) = [then for risk, then in risk_lines(EN, record) if "of the weights were read" in risk]
    assert "the model that it came from" not in then
    new = AuditReport(layer_audit_documents.make_page("new")).record
    assert any("the model that it came from" in then for _, then in risk_lines(EN, new))
    ran = dict(looked_lines(EN, AuditReport(layer_audit_documents.guessed()).record))
    assert any("run on 4 files" in line for line in ran["What was looked at"])


def test_what_an_assumed_input_needs_is_named() -> None:
    for document, begins in (
        (layer_audit_documents.make_page("new"), "Layers were"),
        (layer_audit_documents.guessed(), "Some layers were"),
    ):
        (line,) = [x for x in because(EN, AuditReport(document).record) if "assumed input" in x]
        assert line.startswith(begins)
        assert "--data FOLDER" in line
        assert "--text" in line


def test_nothing_suspicious_is_not_said_above_what_is() -> None:
    for kind, clean in (("new", True), ("identical", True), ("unrelated", False)):
        document = layer_audit_documents.make_page(kind)
        said = answer_text(EN, AuditReport(document).record)
        assert ("nothing suspicious" in said) == clean
        values = {"value": 1, "threshold": 0, "of": 8, "layers": "a"}
        document["verdict"].append({"rule": "dead_units", "outcome": "warn", "values": values})
        said = answer_text(EN, AuditReport(document).record)
        assert "nothing suspicious" not in said
        assert said in page_of(document)


def test_one_reason_is_not_told_twice() -> None:
    for document in (layer_audit_documents.make_page("low_rank"), layer_audit_documents.partly()):
        lines = because(EN, AuditReport(document).record)
        assert sum("not read" in line or "were read" in line for line in lines) == 1
        assert sum("test data" in line for line in lines) == 1


@pytest.mark.parametrize(("layout", "named"), [("guessed", False), ("said", True)])
def test_what_a_guess_left_out_is_said_in_words_of_its_own(layout: str, named: bool) -> None:
    record = AuditReport(layer_audit_documents.guessed(layout)).record
    (line,) = [line for line in because(EN, record) if "lie outside" in line]
    assert ("--map" in line) == named


def test_an_assumed_input_has_words_in_japanese() -> None:
    page = shown_page(layer_audit_documents.make_page("new"), "ja")
    assert "standard normal" not in page
    assert "標準正規分布に従う入力" in page
