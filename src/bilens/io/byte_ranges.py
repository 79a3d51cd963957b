"""Bytes of files that are opened once and read long after, and the headers of safetensors files.

A file is on this machine or at an address. Nothing that a header claims is trusted.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NamedTuple

import msgspec

from bilens.base.errors import CheckpointError
from bilens.base.files import check_regular_file
from bilens.io.remote import RemoteFile, RemotePath

if TYPE_CHECKING:
    import torch
    from torch import Tensor

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
        return cls.from_stat(path, path.stat())

    @classmethod
    def from_stat(cls, path: Path, found: os.stat_result) -> Unchanged:
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
                if Unchanged.from_stat(self.path, os.fstat(file.fileno())) != self:
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

    def locate_block(self, block: Block) -> tuple[int, tuple[int, ...], Block]:
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
        start, shape, _ = self.locate_block(block)
        return ((self.file, start, start + self.dtype.itemsize * prod(shape)),)

    def fetch(self, block: Block) -> Tensor:
        import torch  # headers are read without it

        start, shape, rest = self.locate_block(block)
        found = torch.empty(shape, dtype=self.dtype)
        self.file.fill(found.reshape(-1).view(torch.uint8).numpy().data, start)
        return found[rest].contiguous()


MAX_TENSORS = 100_000
MAX_HEADER_BYTES = 100_000_000  # as of the library safetensors
WEIGHTS = "expected the weights of a model there"
Size = Annotated[int, msgspec.Meta(ge=0)]


class HeaderEntry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """One tensor in a header; its bytes are counted from the end of the header."""

    dtype: str
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]


ENTRY = msgspec.json.Decoder(HeaderEntry)


class Header(NamedTuple):
    """A file with its tensors, in the order of their bytes."""

    file: Opened
    stop: int  # the first byte behind the header
    entries: dict[str, HeaderEntry]
    metadata: dict[str, str]

    def region(self, name: str, dtype: torch.dtype) -> Region:
        """Return the place of a tensor, as many bytes as shape and dtype ask for."""
        entry = self.entries[name]
        start, stop = entry.data_offsets
        if prod(entry.shape) * dtype.itemsize != stop - start:
            raise unreadable(
                self.file.path, f"{entry.shape} of {entry.dtype} in {stop - start} bytes"
            )
        return Region(self.file, self.stop + start, entry.shape, dtype)


def unreadable(path: Path, how: object) -> CheckpointError:
    return CheckpointError(
        f"{path}: is not a readable safetensors file ({how}): check that the download is "
        "complete and that the file is what its name says."
    )


def read_header(path: Path) -> Header:
    """Read the header of a file alone; its tensors fill the rest, without a gap or an overlap."""
    check_regular_file(path, WEIGHTS)
    refuse = partial(unreadable, path)
    try:
        file = opened(path)
        length = int.from_bytes(take(file, 0, 8), "little") if file.size >= 8 else 0
        if not 0 < length <= min(file.size - 8, MAX_HEADER_BYTES):
            raise refuse(f"a header of {length} bytes in a file of {file.size}")
        text = take(file, 8, 8 + length)
    except OSError as error:
        raise refuse(error) from error
    if (count := text.count(b'"data_offsets"')) > MAX_TENSORS:
        raise CheckpointError(f"{path}: holds {count} tensors; at most {MAX_TENSORS} are read.")
    try:
        content = msgspec.json.decode(text, type=dict[str, msgspec.Raw])
        metadata = msgspec.json.decode(content.pop("__metadata__", b"{}"), type=dict[str, str])
        found = [(name, ENTRY.decode(raw)) for name, raw in content.items()]
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise refuse(error) from None
    if len(found) != count:  # the last of two of one name is decoded
        raise refuse("a name stands in it twice")
    found.sort(key=lambda one: one[1].data_offsets)
    end = 0
    for name, entry in found:
        start, stop = entry.data_offsets
        if start != end or stop < end:
            raise refuse(f"{name!r} does not begin where the tensor before it ends")
        end = stop
    if 8 + length + end != file.size:
        raise refuse(f"its tensors end at byte {8 + length + end} of {file.size}")
    return Header(file, 8 + length, dict(found), metadata)


def take(file: Opened, start: int, stop: int) -> bytearray:
    buffer = bytearray(stop - start)
    file.fill(memoryview(buffer), start)
    return buffer
