"""Models at addresses (s3://, gs://, hf://, http(s)://, memory://), read in place.

An address is a path to its readers: of each file they get what they ask for and no more.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import stat
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path, PosixPath
from typing import Any, TypeVar

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import ADDRESS, check_path
from bilens.io.remote_stores import SCHEMES, Info, ObjectStore, no_access

FILES = (".safetensors", ".gguf", ".json")  # what an address of a file ends in
PIECE, STREAMS = 1 << 25, 4  # bytes that are asked for at once, and how often at a time
GAP = 512  # bytes between two ranges that are fetched as one
STORES: dict[str, ObjectStore] = {}  # by scheme; a new one for each model that is opened
S = TypeVar("S")
T = TypeVar("T")


class RemotePath(PosixPath):
    """An address as readers use a path: what they may do is below, anything else is refused."""

    def __str__(self) -> str:
        return super().__str__().replace(":/", "://", 1)

    def __fspath__(self) -> str:
        raise CheckpointError(
            f"{self}: at an address, folders of safetensors and GGUF files are read; of this kind "
            "are files of this machine: download it."
        )

    @property
    def store(self) -> ObjectStore:
        scheme = self.parts[0][:-1]
        return STORES.get(scheme) or STORES.setdefault(scheme, ObjectStore(scheme))

    def pinned(self) -> RemotePath:
        """Return the same, on the hub at the commit that it is at now."""
        return RemotePath(f"hf:/{self.store.pinned(str(self))}") if self.store.hub else self

    def is_file(self) -> bool:
        return self.store.find(str(self)) is not None

    def is_dir(self) -> bool:
        return self.suffix not in FILES

    def exists(self, **_: bool) -> bool:
        return self.is_file()

    def is_symlink(self) -> bool:
        return False

    def resolve(self, strict: bool = False) -> RemotePath:  # noqa: ARG002 - as of a path
        return self

    def glob(self, *_: str, **__: bool) -> Iterator[Any]:  # type: ignore[override]
        return iter(())  # servers of files have no listings to trust

    def open(self, *_: Any, **__: Any) -> Any:
        """Check that the file is there, and return its bytes, fetched as they are read."""
        return io.BufferedReader(RemoteReader(self.opened()), PIECE)

    def downloaded(self) -> Path:
        """Return a model of the hub in the cache of huggingface_hub: its files, no folder in it."""
        return self.store.downloaded(str(self))

    def opened(self) -> RemoteFile:
        found = self.store.find(str(self))
        if found is None:
            raise self.missing()
        return RemoteFile(self, found)

    def missing(self, what: str = "no such file") -> CheckpointError:
        if self.store.refused:
            return no_access(str(self))
        return CheckpointError(f"{self}: {what}: check the address, and what you may read there.")

    def stat(self, **_: bool) -> os.stat_result:
        size = self.opened().size
        return os.stat_result((stat.S_IFREG | 0o444, 0, 0, 1, 0, 0, size, 0, 0, 0))

    def read_bytes(self) -> bytes:
        """Return a small file, asked for once, its checksum looked at where the store has one."""
        file, kept = self.opened(), self.store.whole
        if self not in kept:
            data = bytearray(file.size)
            file.fill(memoryview(data), 0)
            kind, digest = file.info.checksum or ("", "")
            if kind and hashlib.new(kind, data).hexdigest() != digest:  # no secret: it may be MD5
                raise CheckpointError(
                    f"{self}: is not what its store says by {kind}: load it again."
                )
            kept[self] = bytes(data)
        return kept[self]

    def read_text(self, encoding: str | None = None, *_: Any, **__: Any) -> str:
        return self.read_bytes().decode(encoding or "utf-8")


@dataclass(frozen=True)
class RemoteFile:
    """A file at an address as it was when it was opened."""

    path: RemotePath
    info: Info

    @property
    def size(self) -> int:
        return self.info.size

    @property
    def version(self) -> str:
        return self.info.version

    def fill(self, buffer: memoryview, start: int) -> None:
        """Read the bytes from a place on, in pieces."""
        store, stop = self.path.store, start + len(buffer)
        for low, data in store.ahead.get(self.path, ()):
            if low <= start and stop <= low + len(data):
                buffer[:] = data[start - low : stop - low]
                return

        def fetch_piece(low: int) -> None:
            high = min(low + PIECE, stop)
            buffer[low - start : high - start] = store.fetch(str(self.path), low, high, self.info)

        at_once(fetch_piece, range(start, stop, PIECE))

    def read_ahead(self, ranges: Iterable[tuple[int, int]]) -> None:
        """Fetch small ranges that are soon read, those next to each other as one."""
        from fsspec.utils import merge_offset_ranges

        store, url = self.path.store, str(self.path)
        small = [one for one in ranges if one[1] - one[0] <= PIECE]
        starts, stops = ([one[side] for one in small] for side in (0, 1))
        urls, starts, stops = merge_offset_ranges([url] * len(small), starts, stops, GAP, PIECE)
        merged = [*zip(urls, starts, stops, strict=True)]
        pieces = at_once(lambda one: store.fetch(*one, self.info), merged)
        store.ahead[self.path] = [*zip(starts, pieces, strict=True)]


class RemoteReader(io.RawIOBase):
    """The bytes of a file at an address, one after the other."""

    def __init__(self, file: RemoteFile) -> None:
        self.file, self.place = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), self.file.size - self.place)
        self.file.fill(memoryview(buffer)[:count], self.place)
        self.place += count
        return count


def at_once(function: Callable[[S], T], items: Sequence[S]) -> list[T]:
    """Call a function on each item, several at a time; return the results in order."""
    if len(items) < 2:
        return [*map(function, items)]
    with ThreadPoolExecutor(STREAMS) as pool:
        return [*pool.map(function, items)]


def address_in(given: str | Path) -> str:
    """Return an address as it is written, also from a `Path` of it; empty of any other path."""
    found = ADDRESS.match(text := str(given))
    return f"{found[1]}://{text[found.end() :]}" if found and found[1] in SCHEMES else ""


def located(given: str | Path) -> Path:
    """Return a path of this machine, or an address that is read as one."""
    found = None if isinstance(given, RemotePath) else ADDRESS.match(str(given))
    if found is None:
        return check_path("path", given)
    scheme, rest = found[1], str(given)[found.end() :]
    if scheme == "file":
        return Path("/" + rest)
    if scheme not in SCHEMES:
        raise CheckpointError(
            f"{scheme}://{rest}: is an address, and of addresses models are read at "
            f"{', '.join(f'{name}://' for name in SCHEMES)}: download it, pass the file."
        )
    host, *names = rest.split("/")
    if "@" in host or ".." in names or re.search(r"[?#\x00-\x1f]", rest):
        raise UsageError(
            f"{scheme}://…: an address is host and path alone: give users and keys to the package "
            "that reads it (docs/addresses.md)."
        )
    STORES[scheme] = ObjectStore(scheme)
    return RemotePath(f"{scheme}:/{rest.rstrip('/')}")
