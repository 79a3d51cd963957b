"""The explorer of a folder as a server of this process, and a page that must not complain."""

import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from starlette.testclient import TestClient

from bilens_explorer.app import build_app
from bilens_explorer.command import Address, server_of
from bilens_explorer.folder import ServedFolder

HERE = "http://127.0.0.1:8737"
REFUSED = re.compile(r"responded with a status of (400|403|404|503) |net::ERR_FAILED")


def client_of(root: Path) -> TestClient:
    """What asks the explorer of a folder in this process."""
    return TestClient(build_app(ServedFolder(root), [HERE.removeprefix("http://")]), base_url=HERE)


@contextmanager
def served(root: Path) -> Iterator[str]:
    """Yield the address at which a folder is served."""
    with Address(port=0).bound() as listening:
        here = f"127.0.0.1:{listening.getsockname()[1]}"
        server = server_of(build_app(ServedFolder(root), [here]))
        # a daemon: a test that fails holds up no end
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]}, daemon=True)
        thread.start()
        while thread.is_alive() and not server.started:
            time.sleep(0.01)
        try:
            yield f"http://{here}"
        finally:
            server.should_exit = True
            thread.join(timeout=10)


@contextmanager
def opened_page(holder: Any, **options: Any) -> Iterator[Any]:
    """Yield a page of a browser or a context; in the end it has said nothing on its console."""
    found = holder.new_page(**options)
    complaints: list[str] = []
    found.on("console", lambda message: complaints.append(message.text))
    found.on("pageerror", lambda error: complaints.append(str(error)))
    yield found
    found.close()
    # of an answer that refuses, the browser itself says so
    assert [one for one in complaints if not REFUSED.search(one)] == []
