"""Markdown for a pull request: what it says, and that no text of a model acts in it."""

from pathlib import Path

import pytest

from bilens.report.markdown import code, escaped
from bilens.report.reports import AuditReport
from layer_audit_documents import make_comparison, make_layer_audit, variants
from report_documents import make_document

HOSTILE = "a|b <script>`x` [c](http://d) @team **e** \n# f ~~g~~"


@pytest.mark.parametrize("name", variants())
@pytest.mark.parametrize("lang", ["en", "ja"])
def test_every_document_can_be_written(name: str, lang: str) -> None:
    text = AuditReport(variants()[name]).to_markdown(lang=lang)
    assert text.startswith("## bilens audit: ")
    assert text.endswith("\n")
    tables = [line for line in text.splitlines() if line.startswith("|")]
    assert all(line.endswith("|") for line in tables)


def test_a_classifier_has_its_verdict_and_how_to_reproduce_it() -> None:
    document = make_document()
    text = AuditReport(document).to_markdown()
    assert "Formula and model agree" in text
    assert "`bilens audit runs/tiny`" in text
    assert "a" * 64 in text


def test_the_worst_comes_first_and_conditions_are_named() -> None:
    report = AuditReport(make_comparison())
    text = report.to_markdown()
    assert text.index("Do not use: ") < text.index("Is the reading right?")
    assert "✓ No issue" in text
    assert "### Conditions asked for" in text
    assert "### What changed from the baseline" in text
    assert not report.passed
    assert report.failed_rules[-1] == "low_rank"
    assert "changed_layers>1" in report.failed_rules


def test_no_name_acts_in_it() -> None:
    document = make_layer_audit("broken")
    document["layers"]["readings"][0]["name"] = HOSTILE
    document["source"]["path"] = HOSTILE
    document["verdict"][0]["values"]["layers"] = HOSTILE
    document["reproduce"]["command"] = HOSTILE
    text = AuditReport(document).to_markdown()
    outside = [line for line in text.splitlines() if not line.startswith("- Command")]
    for bad in ("<script>", "[c](", "**e**", "@team", "http://", "~~g~~", "\n# f"):
        assert bad not in "\n".join(outside), bad
    assert "``" in text  # the command is fenced by more backticks than it has


def test_texts_and_code_are_on_one_line() -> None:
    assert escaped("a\nb  c") == "a b c"
    assert escaped("5 < 6 & *x*") == "5 &lt; 6 &amp; \\*x\\*"
    assert code("a `b` c") == "`` a `b` c ``"
    assert code("plain\nline") == "`plain line`"


def test_the_file_is_the_text(tmp_path: Path) -> None:
    path = tmp_path / "deep" / "a.md"
    text = AuditReport(make_layer_audit()).to_markdown(path)
    assert path.read_text("utf-8") == text


def test_many_changed_layers_are_cut_with_a_word(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bilens.report.markdown.MOST_LAYERS", 1)
    assert "1 more layer changed" in AuditReport(make_comparison()).to_markdown()
