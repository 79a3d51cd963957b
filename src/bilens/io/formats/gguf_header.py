"""The header of a GGUF file. It is read here: the gguf package follows whatever it claims."""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, replace

from bilens.base.errors import CheckpointError
from bilens.io.byte_ranges import Opened, take

MAGIC = b"GGUF"
VERSIONS = (2, 3)
# GGUF's number of a type: how it is packed
SCALARS = {**dict(enumerate("BbHhIif?")), **dict(enumerate("Qqd", start=10))}
STRING, ARRAY = 8, 9
MAX_COUNT, MAX_NAME, MAX_AXES = 100_000, 65_535, 4
WINDOW = 1 << 18  # bytes that are read at once
Value = int | float | bool | str


@dataclass(frozen=True)
class TensorEntry:
    """One tensor: its shape, rows first, ggml's number of its type, and its first byte."""

    shape: tuple[int, ...]
    kind: int
    offset: int

    @property
    def width(self) -> int:
        return self.shape[-1] if self.shape else 0


@dataclass(frozen=True)
class GGUFHeader:
    """The header of a GGUF file: values by key, and where its tensors lie."""

    values: Mapping[str, Value]  # numbers and texts by key
    # arrays by key, such as the vocabulary, which are passed over: where their bytes begin and end
    arrays: Mapping[str, tuple[int, int]]
    tensors: Mapping[str, TensorEntry]  # by name, in the order of the file
    start: int  # the first byte behind the header
    alignment: int  # of every tensor

    def number(self, key: str) -> int:
        value = self.values.get(key, 0)
        return value if isinstance(value, int) else 0


@dataclass
class HeaderReader:
    """A file that is being read, each claim of which is checked against its size."""

    file: Opened
    where: int = 0
    held: bytes = b""  # of the file, from `start` on
    start: int = 0

    def header(self) -> GGUFHeader:
        if self.take(4) != MAGIC:
            raise self.damaged("does not begin with GGUF")
        version = self.unpack("I")
        if version not in VERSIONS:
            raise CheckpointError(
                f"{self.file.path}: is of GGUF version {version}; versions 2 and 3 are read (in "
                "little-endian order): convert the model again."
            )
        num_tensors, num_values = self.count("Q", MAX_COUNT), self.count("Q", MAX_COUNT)
        values, arrays = dict[str, Value](), dict[str, tuple[int, int]]()
        for _ in range(num_values):
            key, kind, begin = self.text(MAX_NAME), self.unpack("I"), self.where
            value = self.value(kind)
            if value is None:
                arrays[key] = begin, self.where
            else:
                values[key] = value
        found = {}
        for _ in range(num_tensors):
            name = self.text(MAX_NAME)
            axes = [self.unpack("Q") for _ in range(self.count("I", MAX_AXES))]
            found[name] = TensorEntry(tuple(axes[::-1]), self.unpack("I"), self.unpack("Q"))
        if len(found) != num_tensors:
            raise self.damaged("names a tensor twice")
        alignment = values.get("general.alignment", 32)
        if not isinstance(alignment, int) or not 0 < alignment <= MAX_NAME:
            raise self.damaged(f"has the alignment {alignment!r}")
        start = -(-self.where // alignment) * alignment
        tensors = {n: replace(one, offset=start + one.offset) for n, one in found.items()}
        return GGUFHeader(values, arrays, tensors, start, alignment)

    def value(self, kind: int) -> Value | None:
        """Return a number or a text; None for an array, which is passed over."""
        if kind in SCALARS:
            return self.unpack(SCALARS[kind])
        if kind == STRING:
            return self.text(self.file.size)
        if kind != ARRAY:
            raise self.damaged(f"has a value of the unknown type {kind}")
        inner, length = self.unpack("I"), self.count("Q", self.file.size)
        if inner in SCALARS:
            self.skip(length * struct.calcsize(f"<{SCALARS[inner]}"))
        elif inner == STRING:
            for _ in range(length):
                self.skip(self.count("Q", self.file.size))
        else:
            raise self.damaged(f"has an array of the type {inner}")
        return None

    def text(self, longest: int) -> str:
        try:
            return self.take(self.count("Q", longest)).decode()
        except UnicodeDecodeError as error:
            raise self.damaged("has a name that is no text") from error

    def count(self, code: str, most: int) -> int:
        """Return a length that the file can have."""
        number = self.unpack(code)
        if number > most:
            raise self.damaged(f"claims a length of {number}")
        return number

    def unpack(self, code: str) -> int:
        (number,) = struct.unpack(f"<{code}", self.take(struct.calcsize(f"<{code}")))
        return number  # type: ignore[no-any-return]

    def take(self, length: int) -> bytes:
        begin = self.where
        self.skip(length)
        if begin < self.start or self.where > self.start + len(self.held):
            stop = min(max(self.where, begin + WINDOW), self.file.size)
            self.start, self.held = begin, bytes(take(self.file, begin, stop))
        return self.held[begin - self.start : self.where - self.start]

    def skip(self, length: int) -> None:
        if self.where + length > self.file.size:
            raise self.damaged(f"ends after {self.file.size} bytes, in the middle of its header")
        self.where += length

    def damaged(self, how: str) -> CheckpointError:
        return CheckpointError(
            f"{self.file.path}: is not a readable GGUF file ({how}): check that the download is "
            "complete and that the file is what its name says."
        )
