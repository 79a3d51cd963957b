"""What every test shares: no network, one thread, a hypothesis profile, real data."""

import gc
import os
import signal
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

# Small dense algebra on two threads of a busy machine takes ten times as long, imports included.
os.environ["OMP_NUM_THREADS"] = os.environ.get("BILENS_TEST_THREADS", "1")

import pytest
from hypothesis import HealthCheck, settings

from chromium import Shared, opened_browser
from offline import guarded

REPOSITORY = Path(__file__).parents[1]
MNIST_FILE = Path("MNIST/raw/train-images-idx3-ubyte.gz")

# "default" draws the same few examples every time; HYPOTHESIS_PROFILE=nightly looks for new ones.
SLOW_MACHINE = (HealthCheck.too_slow, HealthCheck.data_too_large)
settings.register_profile(
    "default", deadline=None, max_examples=25, derandomize=True, suppress_health_check=SLOW_MACHINE
)
settings.register_profile(
    "nightly", deadline=None, max_examples=5000, suppress_health_check=SLOW_MACHINE
)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "default"))


def pytest_collection_finish() -> None:
    """What was imported stays: to look through it for garbage is a tenth of the time of all."""
    gc.freeze()


@pytest.fixture(scope="session")
def shared_browser() -> Iterator[Shared]:
    yield from opened_browser()


@pytest.fixture(scope="module")
def browser(shared_browser: Shared) -> Iterator[Any]:
    with shared_browser.taken() as found:
        yield found


@pytest.fixture(params=[0.1, pytest.param(1.0, marks=pytest.mark.slow)])
def sweep_share(request: pytest.FixtureRequest) -> float:
    """How much of a long sweep is run: a tenth, and all of it with the slow tests."""
    return float(request.param)


@pytest.fixture(autouse=True, scope="session")
def ctrl_c() -> None:
    """A shell that starts the tests in the background makes them and their children deaf to it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every connection that leaves this machine fails, so that a hidden download is seen."""
    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, guarded(getattr(socket.socket, name)))


@pytest.fixture
def data_dir() -> Path:
    """The folder with real MNIST; the test is skipped where there is none."""
    folder = Path(os.environ.get("BILENS_TEST_DATA") or REPOSITORY / ".." / "shared" / "data")
    if not (folder / MNIST_FILE).is_file():
        pytest.skip(f"no {MNIST_FILE} in {folder}: set BILENS_TEST_DATA to the folder that has it")
    return folder
