"""Records of a file: format, operations, inputs and outputs, tensors, and the files beside it."""

from typing import Annotated, Literal

from bilens.records.base import Count, Document, Json, Record, to_json
from bilens.records.common import Reading
from bilens.records.view import View

FileState = Literal["read", "listed", "beside", "no_model", "refused"]


class CountedName(Record, frozen=True):
    """Operations of a graph, or modules, of one kind."""

    name: Annotated[str, "as the format calls it, subgraphs and functions included"]
    count: Annotated[Count, View("how many there are", "count")]


class PartCount(Record, frozen=True):
    """Parts of a model of one kind that hold weights."""

    kind: Annotated[
        str,
        "`mlp`, `attention`, `convolution`, `lstm`, `gru`, `rnn`, `norm`, `embedding`, `head`, "
        "`trees` or `matrix` (any other one), told by names, shapes and operations",
    ]
    count: Annotated[Count, View("how many there are", "count")]
    read: Annotated[
        Count | None, View("how many are in a layer that was read; null where none was", "count")
    ] = None


class Port(Record, frozen=True):
    """An input or an output of a graph."""

    side: Annotated[Literal["input", "output"], "which of both"]
    name: Annotated[str, "as the file calls it"]
    shape: Annotated[str, "sizes, or names of those that are open; empty where nothing says"]
    dtype: Annotated[str, "of its numbers"]


class TensorGroup(Record, frozen=True):
    """Tensors whose names differ in numbers alone, such as the same matrix of each block."""

    name: Annotated[str, "numbers that differ are written `*`"]
    tensors: Annotated[Count, View("how many there are", "count")]
    shape: Annotated[str, "of each of them; several after each other where they differ"]
    parameters: Annotated[Count, View("numbers in all of them", "count")]
    dtype: Annotated[str, "that they are stored in, or the format's name of their codes"]
    bytes: Annotated[Count, View("that they take in the file", "count")]
    quantised: Annotated[bool, "whether they are codes of numbers"] = False


class CardField(Record, frozen=True):
    """Something that a file, or one beside it, says of the model."""

    name: Annotated[str, "such as `license`"]
    value: Annotated[str, "as it is written there"]
    source: Annotated[str, "the file beside it that says so; empty for the model itself"]


class FileEntry(Record, frozen=True):
    """One file of a folder, and what became of it."""

    name: Annotated[str, "its path from the folder"]
    bytes: Annotated[Count, View("its size", "count")]
    state: Annotated[
        FileState,
        "`read` (the model, or a part of it), `listed` (another model), `beside` (it describes "
        "the model), `no_model` or `refused` (it could not be opened)",
    ]
    said: Annotated[str, "its format, or why it could not be opened"]
    parameters: Annotated[Count | None, View("numbers in its tensors; null of no model", "count")]
    sha256: Annotated[str, "of its bytes"]


class Inventory(Reading, Document, frozen=True, kw_only=True):
    """The contents of a file or folder, read without running anything in it."""

    kind: Annotated[Literal["inventory"], "of the document"] = "inventory"
    path: Annotated[str, "as it was given; empty for a model in memory"]
    format: Annotated[str, "of the file, and what made it where it says so"]
    bytes: Annotated[Count | None, View("of all its files; null in memory", "count")]
    sha256: Annotated[str, "of the file; of several files that of their SHA-256; empty in memory"]
    parameters: Annotated[
        Count | None, View("numbers in its tensors, buffers left out; null without any", "count")
    ]
    tensors: Annotated[Count, View("how many there are", "count")]
    operations: Annotated[tuple[CountedName, ...], "operations or modules, the most first"]
    parts: Annotated[tuple[PartCount, ...], "what it is made of"]
    ports: Annotated[tuple[Port, ...], "inputs and outputs, as far as the file says"]
    groups: Annotated[tuple[TensorGroup, ...], "every tensor, in the order of the file"]
    tied: Annotated[tuple[tuple[str, ...], ...], "tensors of one storage, or of the same bytes"]
    card: Annotated[tuple[CardField, ...], "licence and what else is said of the model"]
    notes: Annotated[tuple[str, ...], "what was not opened, and why"]
    imports: Annotated[tuple[str, ...], "names that opening it as its maker does would import"]
    codes: Annotated[
        Count, View("of these numbers, codes that stand for one weight or several each", "count")
    ] = 0
    files: Annotated[tuple[FileEntry, ...], "of a folder every file; empty for a file"] = ()

    def to_dict(self) -> dict[str, Json]:
        """Return the inventory as JSON values."""
        return to_json(self)
