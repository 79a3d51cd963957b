"""A real browser for tests: the Chromium of this machine, driven by Playwright."""

import os
import shutil
from collections.abc import Iterator
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
]


def find_browser() -> str | None:
    """The browser of BILENS_TEST_BROWSER, or the first one on the path."""
    named = os.environ.get("BILENS_TEST_BROWSER")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium found: set BILENS_TEST_BROWSER to one"
)


def opened_browser() -> Iterator[Any]:
    """Yield the browser, closed in the end."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        found = driver.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        yield found
        found.close()
