"""The explorer of the folder `root` of a test or a module: asked as JSON, or seen in a browser."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.testclient import TestClient

from explorer_server import client_of, opened_page, served


@pytest.fixture
def client(root: Path) -> Iterator[TestClient]:
    with client_of(root) as found:
        yield found


@pytest.fixture(scope="module")
def address(root: Path) -> Iterator[str]:
    with served(root) as found:
        yield found


@pytest.fixture
def page(browser: Any, address: str) -> Iterator[Any]:
    with opened_page(browser, address) as found:
        yield found
