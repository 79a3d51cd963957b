"""Byte ranges that were fetched, kept in a folder of bounded size; the least recently used go.

Each file is written beside its place and renamed, so that several processes may share the folder
and none reads half a file.
"""

from __future__ import annotations

import hashlib
import os
import re
import tempfile
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

DIGEST = hashlib.sha256().digest_size
STAGED = "range-"
OURS = re.compile(rf"[0-9a-f]{{64}}|{STAGED}.*")  # the folder may hold files of others


class RangeCache:
    """The folder as one reader uses it; each file is the SHA-256 of a range, and the range."""

    def __init__(self) -> None:
        from bilens.base.memory import parse_bytes  # loads torch

        home = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
        self.folder = Path(os.environ.get("BILENS_CACHE") or f"{home}/bilens").expanduser()
        limit = os.environ.get("BILENS_CACHE_LIMIT") or "2GiB"
        self.limit = 0 if limit == "0" else parse_bytes(limit)
        self.room = 0  # bytes that may be written before the folder is looked through again

    def through(self, key: str, num_bytes: int, fetch: Callable[[], bytes]) -> bytes:
        """Return what is kept under a key, or else fetch it, and keep it unless it is large."""
        if 4 * num_bytes > self.limit:
            return fetch()
        file = self.folder / hashlib.sha256(key.encode()).hexdigest()
        with suppress(OSError):
            content = file.read_bytes()
            data = content[DIGEST:]
            if hashlib.sha256(data).digest() == content[:DIGEST]:
                os.utime(file)
                return data
        data = fetch()
        with suppress(OSError):  # a full disk keeps nobody from reading
            self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self.make_room(num_bytes)
            with tempfile.NamedTemporaryFile(
                prefix=STAGED, dir=self.folder, delete=False
            ) as written:
                written.write(hashlib.sha256(data).digest() + data)
            Path(written.name).replace(file)
        return data

    def make_room(self, num_bytes: int) -> None:
        """Remove what was not used for the longest, a sixteenth at a time."""
        self.room -= num_bytes
        if self.room >= 0:
            return
        found = []
        for entry in os.scandir(self.folder):
            if not OURS.fullmatch(entry.name) or not entry.is_file(follow_symlinks=False):
                continue
            with suppress(OSError):  # another process removed it
                found.append((entry.stat().st_mtime_ns, entry.stat().st_size, entry.path))
        total = num_bytes + sum(size for _, size, _ in found)
        for _, size, path in sorted(found):
            if total <= self.limit - self.limit // 16:
                break
            Path(path).unlink(missing_ok=True)
            total -= size
        self.room = (self.limit - total) // 8  # others write, too
