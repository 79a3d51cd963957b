"""The explorer as one file: all pages, all data, no request, and what had no room is told.

Broken once: with a link left to the server's address, with the script's hash not in the policy,
with imports kept, with nested noscript.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens.report.reports import AuditReport
from bilens.serve import export as exports
from bilens.serve.endpoint import Asked
from bilens.serve.export import bundle, export, held_key
from bilens.serve.folder import ServedFolder, id_of
from chromium import needs_browser
from commands import USAGE, Shell, model_folder
from report_documents import failed, make_document

HOSTILE = '<img src=x onerror="alert(1)"></script><!--'


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("folder") / "runs"
    for name in ("mnist", "<img src=x onerror=alert(1)>"):
        model_folder(root / name, tiny.classifier())
    history = bl.History(root)
    for document in (make_document(), failed()):
        source = document["source"] | {"path": str(root / "mnist")}
        history.add(AuditReport(document | {"source": source}).record)
    history.say("note", "mnist", "rule:exact", HOSTILE, HOSTILE)
    AuditReport(make_document()).to_json(root / "report.json")
    return root


@pytest.fixture(scope="module")
def file(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("file") / "explorer.html"
    found.write_text(export(ServedFolder(folder), "en").html, "utf-8")
    return found


@pytest.fixture
def page(browser: Any, file: Path) -> Iterator[Any]:
    found = browser.new_page(base_url=file.as_uri())
    complaints: list[str] = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("request", lambda request: complaints.append(request.url))
    found.goto(file.as_uri())
    yield found
    found.close()
    # the file itself, images inside it and the report's frame ask nobody
    inside = (file.as_uri(), "data:", "about:srcdoc", "blob:")
    assert [one for one in complaints if not one.startswith(inside)] == []


@needs_browser
def test_all_pages_are_in_the_file(page: Any) -> None:
    page.get_by_role("link", name="mnist", exact=True).press("Enter")
    page.get_by_role("link", name="Layers and spectra").click()
    page.get_by_role("cell", name="layers.0").wait_for()
    page.get_by_role("link", name="日本語").click()
    page.get_by_role("link", name="層とスペクトル").wait_for()
    page.get_by_role("cell", name="layers.0").wait_for()
    page.get_by_role("link", name="English").click()
    page.get_by_role("link", name="Layers and spectra").wait_for()
    page.get_by_role("link", name="bilens").click()
    page.get_by_role("link", name="report.json").click()
    inside = page.frame_locator("iframe").get_by_role("heading", level=1)
    assert inside.inner_text() == "Audit of an AI model"


@needs_browser
def test_without_script_the_pages_stand_below_each_other(browser: Any, file: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(file.as_uri())
    page.get_by_role("link", name="mnist", exact=True).click()
    assert page.url.endswith(f"#/models/{id_of('mnist')}")
    assert page.get_by_role("heading", name="Everything that people said").first.is_visible()
    context.close()


def test_no_link_leads_to_a_server(file: Path) -> None:
    text = file.read_text("utf-8")
    assert ' href="/' not in text
    assert ' src="' not in text
    assert "<img src=x" not in text
    assert "bilens-secret" not in text
    assert len(text) < exports.LARGEST


def test_modules_become_one_script() -> None:
    script = bundle()
    assert "import {" not in script
    assert "\nexport " not in script


def test_a_view_asks_for_what_the_file_holds() -> None:
    assert held_key("/models/{key}", Asked({"key": "1a"}, {"b": 2, "a": "x y"})) == (
        '/models/1a?[["a","x y"],["b","2"]]'
    )


def test_what_has_no_room_is_told(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exports, "LARGEST", len(export(ServedFolder(folder), "en").html) - 99)
    assert export(ServedFolder(folder), "en").left_out != []


def test_the_command_writes_the_file_and_no_other(
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    folder: Path,
    tmp_path: Path,
) -> None:
    bilens = Shell(capsys, monkeypatch)
    file = tmp_path / "explorer.html"
    assert bilens("serve", folder, "--export", file).code == 0
    assert "--overwrite" in bilens("serve", folder, "--export", file).error()
    assert bilens("serve", folder, "--export", file, "--overwrite").code == 0
    assert bilens("serve", folder, "--export", tmp_path).code == USAGE
