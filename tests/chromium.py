"""A real browser for tests: the Chromium of this machine, driven by Playwright."""

import asyncio
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
ARGUMENTS = [
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--process-per-site", "--renderer-process-limit=1"),  # to start one is most of a short page
]


def find_browser() -> str | None:
    """The browser of BILENS_TEST_BROWSER, or the first one on the path."""
    named = os.environ.get("BILENS_TEST_BROWSER")
    return named or next(filter(None, map(shutil.which, NAMES)), None)


needs_browser = pytest.mark.skipif(
    find_browser() is None, reason="no Chromium found: set BILENS_TEST_BROWSER to one"
)


class Shared:
    """A browser for all who ask for one; while nobody does, its loop is not seen to run."""

    def __init__(self, driver: Any) -> None:
        self.browser = driver.chromium.launch(executable_path=find_browser(), args=ARGUMENTS)
        self.loop = asyncio._get_running_loop()
        asyncio._set_running_loop(None)

    @contextmanager
    def taken(self) -> Iterator[Any]:
        """Yield the browser."""
        asyncio._set_running_loop(self.loop)
        yield self.browser
        asyncio._set_running_loop(None)


OPEN: list[Shared] = []  # one for all folders of tests


def opened_browser() -> Iterator[Shared]:
    """Yield the browser, closed in the end by who opened it."""
    if OPEN:
        yield OPEN[0]
        return
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
    with playwright.sync_playwright() as driver:
        shared = Shared(driver)
        OPEN.append(shared)
        yield shared
        OPEN.clear()
        asyncio._set_running_loop(shared.loop)
        shared.browser.close()
