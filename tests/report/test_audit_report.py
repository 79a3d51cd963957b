"""The report object: a round trip through files, and errors in one sentence.

Damage seen to fail: the file written without `write_file`; NaN let into the JSON text.
"""

import hashlib
import html
import json
import re
from pathlib import Path

import pytest

from bilens.base.errors import BilensError, CheckpointError, FileError, NonFiniteError, UsageError
from bilens.records.base import kind_of
from bilens.report import reports
from bilens.report.reports import AuditReport
from every_document import DOCUMENTS
from layer_audit_documents import make_measured
from report_documents import KINDS, make_document, variants


@pytest.mark.parametrize("name", DOCUMENTS)
def test_a_report_survives_a_round_trip(name: str, tmp_path: Path) -> None:
    document = DOCUMENTS[name]
    (kind,) = (kind for kind in KINDS if kind_of(kind.type) == document["kind"])
    report = kind(document)
    text = report.to_json(tmp_path / "deep" / "report.json")
    again = kind.from_json(tmp_path / "deep" / "report.json")
    assert again == report
    assert again.to_dict() == report.to_dict() == document == json.loads(text)
    assert again.to_html() == report.to_html()
    (other, *_) = (one for one in KINDS if one is not kind)
    with pytest.raises(CheckpointError, match=f"an? {kind_of(other.type)} document was expected"):
        other.from_json(tmp_path / "deep" / "report.json")


def test_twelve_mistakes_are_drawn_and_all_are_counted() -> None:
    document = make_measured()
    found = document["performance"]
    found["mistakes"] = [found["mistakes"][0] | {"index": index} for index in range(1000, 1030)]
    accuracy = found["classification"]["accuracy"] | {"right": 60, "total": 100, "value": 0.6}
    found["classification"]["accuracy"], found["rows"] = accuracy, 100
    page = AuditReport(document).to_html()
    assert "Of 100 rows, 40 were answered wrong; of these the 12 most confident ones are" in page
    assert "1,011" in page
    assert "1,012" not in page


def test_the_file_is_the_text_and_a_line_end() -> None:
    text = AuditReport(make_document()).to_json()
    assert "\n" not in text
    assert text.isascii()


def test_the_page_names_the_hash_of_the_json_file(tmp_path: Path) -> None:
    report = AuditReport(make_document())
    report.to_json(tmp_path / "audit.json")
    digest = hashlib.sha256((tmp_path / "audit.json").read_bytes()).hexdigest()
    assert digest in report.to_html()


@pytest.mark.parametrize("lang", ["en", "ja"])
def test_the_page_that_is_written_is_the_one_returned(lang: str, tmp_path: Path) -> None:
    text = AuditReport(make_document()).to_html(tmp_path / "report.html", lang=lang)
    assert (tmp_path / "report.html").read_text("utf-8") == text
    assert text.startswith("<!doctype html>")
    assert f'<html lang="{lang}">' in text


def test_a_failed_write_leaves_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "audit.json"
    path.write_text("old")

    def full(_path: Path, _target: Path) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Path, "replace", full)
    with pytest.raises(BilensError, match="No space left"):
        AuditReport(make_document()).to_json(path)
    with pytest.raises(BilensError, match="No space left"):
        AuditReport(make_document()).to_html(path)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]


def test_writing_is_left_to_the_one_function_that_does_it(monkeypatch: pytest.MonkeyPatch) -> None:
    written: dict[Path, bytes] = {}
    monkeypatch.setattr(reports, "write_file", written.__setitem__)
    report = AuditReport(make_document())
    report.to_json("a.json")
    report.to_html("a.html")
    assert json.loads(written[Path("a.json")]) == report.to_dict()
    assert written[Path("a.html")].decode() == report.to_html()


def test_an_unknown_language_is_refused_before_anything_is_written(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="en, ja"):
        AuditReport(make_document()).to_html(tmp_path / "report.html", lang="fr")
    assert list(tmp_path.iterdir()) == []


def test_passed_is_what_the_document_says() -> None:
    assert AuditReport(variants()["healthy"]).passed is True
    assert AuditReport(variants()["failed"]).passed is False


def test_a_report_cannot_be_changed_from_outside() -> None:
    document = make_document()
    report = AuditReport(document)
    document["passed"] = False
    report.to_dict()["passed"] = False
    assert report.passed is True
    with pytest.raises(AttributeError):
        report.document = {}  # type: ignore[misc]


def test_nan_is_refused_at_construction() -> None:
    with pytest.raises(NonFiniteError):
        AuditReport(make_document() | {"null_samples": float("nan")})


FILES = {
    "not JSON": (b"{", "not a JSON file"),
    "not text": (b"\xff\xfe\x00", "not a JSON file"),
    "empty": (b"", "not a JSON file"),
    "too deep": (b"[" * 100_000, "not a JSON file"),
    "a list": (b"[]", "an audit document was expected"),
    "another kind": (b'{"kind": "explanation"}', "an audit document was expected"),
    "the future": (b'{"kind": "audit", "schema_version": 3}', "schema_version 3"),
    "a part": (b'{"kind": "audit", "schema_version": 2}', "is missing"),
    "NaN": (b'{"kind": "audit", "schema_version": 2, "seed": NaN}', "cannot be written as JSON"),
}


@pytest.mark.parametrize("name", FILES)
def test_a_file_that_is_no_report_is_named(name: str, tmp_path: Path) -> None:
    content, words = FILES[name]
    path = tmp_path / "audit.json"
    path.write_bytes(content)
    with pytest.raises(CheckpointError) as caught:
        AuditReport.from_json(path)
    message = str(caught.value)
    assert message.startswith(f"{path}: ")
    assert words in message
    assert "\n" not in message


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.json: cannot be read \(No such file"):
        AuditReport.from_json(tmp_path / "gone.json")
    assert issubclass(CheckpointError, FileError)


def test_a_notebook_shows_the_page_in_a_frame_that_can_do_nothing() -> None:
    report = AuditReport(make_document(classes=2, shape=(2, 2)))
    frame = re.fullmatch(
        r'<iframe sandbox="" srcdoc="([^"]*)"[^>]*></iframe>', report._repr_html_()
    )
    assert frame is not None
    assert html.unescape(frame[1]) == report.to_html()
    assert 'title="bilens audit"' in frame[0]


def test_what_is_no_path_is_refused() -> None:
    report = AuditReport(make_document())
    for ask in (AuditReport.from_json, report.to_json, report.to_html, report.to_evidence):
        with pytest.raises(UsageError, match=r"(path|folder) is a int; expected a text or a Path"):
            ask(3)
