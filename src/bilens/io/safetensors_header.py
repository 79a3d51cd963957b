"""The header of a safetensors file: which tensor lies where. Nothing that it claims is trusted."""

from __future__ import annotations

from functools import partial
from math import prod
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
import torch

from bilens.base.errors import CheckpointError
from bilens.base.files import check_regular_file
from bilens.io.byte_ranges import Opened, Region, opened

MAX_TENSORS = 100_000
MAX_HEADER_BYTES = 100_000_000  # as of the library safetensors
WEIGHTS = "expected the weights of a model there"
Size = Annotated[int, msgspec.Meta(ge=0)]


class Entry(msgspec.Struct, forbid_unknown_fields=True, gc=False):
    """What a header says of one tensor; its bytes are counted from the end of the header."""

    dtype: str
    shape: tuple[Size, ...]
    data_offsets: tuple[Size, Size]


ENTRY = msgspec.json.Decoder(Entry)


class Header(NamedTuple):
    """A file with its tensors, in the order of their bytes."""

    file: Opened
    stop: int  # the first byte behind the header
    entries: dict[str, Entry]
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
