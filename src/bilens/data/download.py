"""Downloading MNIST and Fashion-MNIST through torchvision into the user's cache."""

from __future__ import annotations

import socket
import threading
import urllib.request
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from http.client import HTTPException
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any
from urllib.error import HTTPError

from bilens.base.errors import DataError, MissingExtraError
from bilens.data.idx import SUBFOLDERS, read_folder

SILENCE_SECONDS = 10.0  # a connection that is silent for so long is given up
PROBE_SECONDS = 6.0  # with the import of torchvision, an offline machine gives up within 10 s


def download(name: str, cache: Path) -> Path:
    """Return the folder cache/name, filled with the four files of a data set."""
    title = SUBFOLDERS[name][0]
    try:
        source = torchvision_class(title)
        if not is_reachable([mirror + source.resources[0][0] for mirror in source.mirrors]):
            raise DataError(
                f"{title} was not downloaded: no server answered within {PROBE_SECONDS:g} s; "
                "check the network, or pass a folder with the four IDX files."
            )
        cache.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory(prefix=".download-", dir=cache) as temporary:
            with silence_limit(SILENCE_SECONDS):
                source(temporary, download=True)
            complete, _ = read_folder(name, Path(temporary))
            if (cache / name).exists():
                (cache / name).replace(Path(temporary, "old"))
            return complete.replace(cache / name)
    except (OSError, RuntimeError, HTTPException) as error:
        reason = " ".join(str(error).split())  # torchvision writes a line for each mirror
        raise DataError(
            f"{title} was not downloaded ({reason}): try again later, or pass a folder with the "
            "four IDX files."
        ) from None


def torchvision_class(title: str) -> Any:
    """Return the torchvision data set of that name; its import takes over a second."""
    try:
        from torchvision import datasets
    except ImportError:
        raise MissingExtraError("torchvision", "images", f"Downloading {title}") from None
    return getattr(datasets, title)


def is_reachable(urls: Sequence[str], refusal_counts: bool = False) -> bool:
    """Say within PROBE_SECONDS whether one of the addresses answers."""
    answered = threading.Event()

    def probe() -> None:
        for url in urls:
            request = urllib.request.Request(url, method="HEAD")  # noqa: S310 (torchvision's URLs)
            try:
                urllib.request.urlopen(request, timeout=PROBE_SECONDS / len(urls)).close()  # noqa: S310
            except (OSError, HTTPException) as error:
                if not (refusal_counts and isinstance(error, HTTPError)):
                    continue
            answered.set()
            return

    # Looking up a host name knows no time-out, so the wait for the thread is what is limited.
    thread = threading.Thread(target=probe, daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return answered.is_set()


@contextmanager
def silence_limit(seconds: float) -> Iterator[None]:
    """Give up connections that are silent for so long; torchvision sets no time-out itself."""
    before = socket.getdefaulttimeout()
    socket.setdefaulttimeout(seconds)
    try:
        yield
    finally:
        socket.setdefaulttimeout(before)
