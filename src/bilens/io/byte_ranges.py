"""Bytes of files that are opened once and read long after: on this machine or at an address."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError
from bilens.io.remote import RemoteFile, RemotePath

Block = tuple[slice, ...]  # of the leading axes of a tensor; empty for all of it


@dataclass(frozen=True)
class Unchanged:
    """A file of this machine as it was when it was opened."""

    path: Path
    size: int
    state: tuple[int, ...]

    @property
    def version(self) -> str:
        return f"of {self.state[2]} ns"

    @classmethod
    def now(cls, path: Path) -> Unchanged:
        return cls.of(path, path.stat())

    @classmethod
    def of(cls, path: Path, found: os.stat_result) -> Unchanged:
        state = (found.st_dev, found.st_ino, found.st_mtime_ns, found.st_ctime_ns)
        return cls(path, found.st_size, state)

    def check(self) -> None:
        """Refuse a file that was changed, moved or removed since."""
        if not self.path.is_file() or Unchanged.now(self.path) != self:
            raise self.changed()

    def changed(self) -> CheckpointError:
        return CheckpointError(
            f"{self.path}: was changed or moved after the model was loaded: load it again."
        )

    def fill(self, buffer: memoryview, start: int) -> None:
        """Read the bytes from a place on."""
        try:
            with self.path.open("rb", buffering=0) as file:
                if Unchanged.of(self.path, os.fstat(file.fileno())) != self:
                    raise self.changed()
                file.seek(start)
                while buffer and (count := file.readinto(buffer)):
                    buffer = buffer[count:]
        except OSError:
            self.check()
            raise
        if buffer:
            raise self.changed()


Opened = Unchanged | RemoteFile
Span = tuple[Opened, int, int]  # first byte, and the one behind the last


def opened(path: Path) -> Opened:
    return path.opened() if isinstance(path, RemotePath) else Unchanged.now(path)


@contextmanager
def soon_read(spans: Iterable[Span]) -> Iterator[None]:
    """Have the bytes that are read in a block fetched in few requests, where they are far."""
    far: dict[RemoteFile, list[tuple[int, int]]] = {}
    for file, start, stop in spans:
        if isinstance(file, RemoteFile):
            far.setdefault(file, []).append((start, stop))
    try:
        for file, ranges in far.items():
            file.read_ahead(ranges)
        yield
    finally:
        for file in far:
            file.path.store.ahead.pop(file.path, None)


class Region(NamedTuple):
    """A dense array of numbers in a file."""

    file: Opened
    start: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def part(self, block: Block) -> tuple[int, tuple[int, ...], Block]:
        """Return the first byte and the shape of what holds a block, and how to cut it from that.

        Axes of which one index is taken, and the first of several, lie in one piece.
        """
        start, shape, rest = self.start, list(self.shape), Block()
        for axis, cut in enumerate(block):
            low, high, _ = cut.indices(shape[axis])
            start += low * self.dtype.itemsize * prod(shape[axis + 1 :])
            shape[axis] = max(high - low, 0)
            if shape[axis] != 1 and len(block) > axis + 1:
                rest = (*[slice(None)] * (axis + 1), *block[axis + 1 :])
                break
        return start, tuple(shape), rest

    def spans(self, block: Block) -> tuple[Span, ...]:
        """Return the bytes that a block is read from."""
        start, shape, _ = self.part(block)
        return ((self.file, start, start + self.dtype.itemsize * prod(shape)),)

    def read(self, block: Block) -> Tensor:
        start, shape, rest = self.part(block)
        found = torch.empty(shape, dtype=self.dtype)
        self.file.fill(found.reshape(-1).view(torch.uint8).numpy().data, start)
        return found[rest].contiguous()
