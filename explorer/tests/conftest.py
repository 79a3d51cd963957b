"""The explorer of the folder `root` of a test or a module: asked as JSON, or seen in a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from explorer_server import client_of, opened_page, served
from tests.conftest import (
    browser,
    ctrl_c,
    data_dir,
    offline,
    pytest_collection_finish,
    shared_browser,
    sweep_share,
)

__all__ = [
    "browser",
    "ctrl_c",
    "data_dir",
    "offline",
    "pytest_collection_finish",
    "shared_browser",
    "sweep_share",
]


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    with client_of(root) as found:
        yield found


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served(root) as found:
        yield found


@pytest.fixture(scope="module")
def context(browser: Any, address: str) -> Iterator[Any]:
    """What the pages of a module share, and their process with it: the first of them stays."""
    found = browser.new_context(base_url=address)
    found.new_page().goto("/static/people.js")
    yield found
    found.close()


@pytest.fixture
def page(context: Any) -> Iterator[Any]:
    with opened_page(context) as found:
        yield found
    context.pages[0].evaluate("localStorage.clear()")
