"""The explorer in a real browser: by mouse and keyboard, at every width, without a complaint.

Broken once: with the script's file refused by the policy, with a table wider than the window.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import bilens as bl
import tiny
from bilens.report.reports import AuditReport
from chromium import needs_browser
from commands import model_folder
from explorer_server import opened_page, served
from report_documents import failed, make_document

pytestmark = needs_browser


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("folder") / "runs"
    for name in ("alpha", "beta", "x" * 120):
        model_folder(folder / name, tiny.classifier())
    history = bl.History(folder)
    for document in (make_document(), failed()):
        source = document["source"] | {"path": str(folder / "beta")}
        record = AuditReport(document | {"source": source}).record
        history.add(record)
    return folder


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served(root) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened_page(browser, address) as found:
        yield found


def shown(page: Any) -> list[str]:
    rows = page.locator("table.models tbody tr")
    return [row.locator("a").inner_text() for row in rows.all() if row.is_visible()]


def test_models_are_searched_and_sorted(page: Any) -> None:
    page.goto("/?lang=en")
    assert shown(page)[0] == "beta"
    page.get_by_role("searchbox").fill("alpha")
    assert shown(page) == ["alpha"]
    assert page.locator(".controls output").inner_text() == "1 of 3"
    page.reload()  # the address keeps what was searched
    assert shown(page) == ["alpha"]
    page.get_by_role("searchbox").fill("")
    page.get_by_role("button", name="Model").press("Enter")
    assert shown(page)[:2] == ["alpha", "beta"]
    page.get_by_role("button", name="Model").click()
    assert shown(page)[1:] == ["beta", "alpha"]


@pytest.mark.parametrize("width", [360, 768, 1280, 1920])
def test_nothing_is_wider_than_the_window(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    for lang in ("en", "ja"):
        page.goto(f"/?lang={lang}")
        model = page.get_by_role("link", name="beta").get_attribute("href")
        for place in (f"/?lang={lang}", model):
            page.goto(place)
            assert page.evaluate("document.documentElement.scrollWidth") <= width
