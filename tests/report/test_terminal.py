"""The report for a terminal.

Damage seen to fail: a class name given to rich as markup; largest and smallest exchanged.
"""

from __future__ import annotations

from typing import Any

import pytest
from rich.console import Console

from bilens.report.reports import AuditReport
from bilens.report.terminal import audit_table, summary_lines
from report_documents import make_document, variants


def printed(document: dict[str, Any], lang: str = "en", width: int = 120) -> str:
    console = Console(width=width, no_color=True, record=True, file=None, quiet=False)
    with console.capture() as capture:
        console.print(audit_table(AuditReport(document).to_dict(), lang))
    return capture.get()


def test_one_row_for_each_class_with_both_ends_of_its_spectrum() -> None:
    text = printed(make_document())
    (row,) = (line for line in text.splitlines() if line.strip("│┃ ").startswith("1 "))
    cells = [cell.strip() for cell in row.strip("│").split("│")]
    assert cells == ["1", "6.5", "8.5–9.5", "7.8", "2 / 1", "+0.900", "−0.800"]
    assert "do not compare it between models" in " ".join(text.split())


@pytest.mark.parametrize("lang", ["en", "ja"])
@pytest.mark.parametrize("name", variants())
def test_every_document_has_a_table_and_lines(name: str, lang: str) -> None:
    document = AuditReport(variants()[name]).to_dict()
    assert len(audit_table(document, lang).rows) == len(document["classes"])
    assert all(line.strip() for line in summary_lines(document, lang))


def test_it_fits_into_eighty_columns() -> None:
    assert max(len(line) for line in printed(make_document(), width=80).splitlines()) <= 80


@pytest.mark.parametrize("name", ["[red]x[/red]", "[/]", "[link=file:///x]y[/link]", ":boom:"])
def test_a_name_is_never_read_as_markup(name: str) -> None:
    assert name in printed(make_document(names=[name, "b"]), width=200)


def test_a_name_cannot_drive_the_terminal() -> None:
    document = make_document(names=["\x1b[2Ja\x07\x9b31m", "b\u202ec"])
    document["verdict"][4] = {
        "rule": "beyond_null",
        "outcome": "warn",
        "values": {"median": 0, "least": 0, "most": 0, "none": "\x1b]0;title\x07"},
    }
    text = printed(document) + "".join(summary_lines(AuditReport(document).to_dict()))
    assert not [character for character in text if ord(character) < 32 and character != "\n"]
    assert not {"\x9b", "\u202e", "\x7f"} & set(text)


def test_the_lines_end_with_the_verdict() -> None:
    *findings, verdict = summary_lines(AuditReport(make_document()).to_dict())
    assert verdict.startswith("✓ The reading is exact")
    assert len(findings) == 7
    joined = "\n".join(findings)
    for words in ("8.2\u00a0×\u00a010⁻¹⁶", "2.7\u00a0×\u00a010⁻⁷", "90.0% of 10", "55.5% to 99.8%"):
        assert words in joined


def test_a_failure_is_said_in_words() -> None:
    lines = summary_lines(AuditReport(variants()["failed"]).to_dict())
    assert lines[0].startswith("✗ Failed: Formula and model disagree")
    assert lines[-1].startswith("✗ The reading failed a check")


def test_without_data_the_lines_say_so() -> None:
    lines = summary_lines(AuditReport(make_document(data=False)).to_dict())
    assert any("No data were given" in line for line in lines)
