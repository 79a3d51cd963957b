"""Every page of the explorer that links lead to: for hands, eyes and screen readers.

Broken once: with a control without a name, with grey text too pale, with a table wider than the
window, with a script that fails.
"""

import re
from collections.abc import Iterator
from importlib.resources import files
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from chromium import needs_browser
from explorer_folder import HOSTILE, write_folder
from explorer_server import served

pytestmark = needs_browser
LINK = re.compile(r' href="(/[^"]*)"')
REPORTS = re.compile(r"/(audits|reports)/\w+$")  # files of their own, which have their own test
MISSED = """() => [...document.querySelectorAll("main a[href], main button, main input")]
    .filter((each) => each.checkVisibility() && !each.disabled && each.tabIndex < 0)
    .map((each) => each.outerHTML.slice(0, 200))"""
SERIOUS = ("serious", "critical")


@pytest.fixture(scope="module")
def address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    with served(write_folder(tmp_path_factory.mktemp("folder") / "runs")) as found:
        yield found


@pytest.fixture(scope="module")
def paths(address: str) -> list[str]:
    """All pages, as a reader would find them."""
    found, waiting = [], ["/"]
    while waiting:
        path = waiting.pop()
        if path in found or path.startswith("/static") or REPORTS.search(path):
            continue
        found.append(path)
        page = httpx.get(address + path, timeout=60)
        assert page.status_code == 200, path
        waiting += [urlsplit(link).path for link in LINK.findall(page.text)]
    models = httpx.get(f"{address}/api/v1/overview", timeout=60).json()["models"]
    keys = {row["name"]: row["id"] for row in models}
    return [*found, f"/compare?a={keys['images']}&b={keys[HOSTILE]}"]


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    context = browser.new_context(base_url=address, reduced_motion="reduce")
    found = context.new_page()
    complaints: list[str] = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    found.on("dialog", lambda dialog: complaints.append(dialog.message))
    yield found
    context.close()
    assert complaints == []


def opened(page: Any, path: str, lang: str) -> None:
    page.goto(f"{path}{'&' if '?' in path else '?'}lang={lang}")
    page.wait_for_selector("main:not(:has([aria-busy]))")
    wrong = [text for text in page.locator("[role=alert]").all_inner_texts() if text]
    assert wrong == [], path


@pytest.mark.parametrize(("lang", "theme"), [("en", "light"), ("ja", "dark")])
def test_no_page_bars_anybody(page: Any, paths: list[str], lang: str, theme: str) -> None:
    axe = (files(pytest.importorskip("axe_playwright_python")) / "axe.min.js").read_text("utf-8")
    page.emulate_media(color_scheme=theme)
    faults = []
    for path in paths:
        opened(page, path, lang)
        page.evaluate(axe)
        found = page.evaluate("axe.run({resultTypes: ['violations']})")["violations"]
        faults += [
            (path, one["id"], [node["html"][:200] for node in one["nodes"]][:3])
            for one in found
            if one["impact"] in SERIOUS
        ]
    assert faults == []


@pytest.mark.parametrize(("width", "lang"), [(360, "ja"), (2560, "en")])
def test_no_page_is_wider_than_its_window(
    page: Any, paths: list[str], width: int, lang: str
) -> None:
    page.set_viewport_size({"width": width, "height": 900})
    wide = []
    for path in paths:
        opened(page, path, lang)
        if page.evaluate("document.documentElement.scrollWidth") > width:
            wide.append(path)
    assert wide == []


def test_focus_is_seen_and_leaves_no_page(page: Any, paths: list[str]) -> None:
    """The keyboard reaches every control that a mouse can use, and shows where it is."""
    for path in paths:
        opened(page, path, "en")
        missed = page.evaluate(MISSED)
        # one of a group of tabs or of radio buttons stands for all of them
        assert missed == [], path
        page.keyboard.press("Tab")
        shown = page.evaluate("getComputedStyle(document.activeElement).outlineStyle")
        assert shown != "none", path


@pytest.mark.slow
def test_hostile_names_stay_text(page: Any, paths: list[str]) -> None:
    for path in paths:
        opened(page, path, "en")
        assert page.locator("img[src=x]").count() == 0
    page.goto("/?lang=en")
    assert page.get_by_role("link", name=HOSTILE).count() == 1


def test_the_folder_has_every_kind_of_page(paths: list[str]) -> None:
    ends = {path.rpartition("/")[2] for path in paths}
    assert {"spectra"} <= ends
