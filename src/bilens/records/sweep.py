"""A sweep over the layers of a model: what there is to do, and what came of each piece."""

from typing import Any, Literal

from bilens.records.base import Count, Document, Integer, Record
from bilens.records.common import Source
from bilens.records.mlp_trace import DirectionReading


class Span(Record, frozen=True):
    """A range of bytes of a file."""

    file: str  # below the model
    start: Count
    stop: Count


class StoredPart(Record, frozen=True):
    """A weight or bias of a layer, and where it lies."""

    role: str  # `gate`, `up`, `down`, or one of them with `_bias`
    name: str  # of the tensor
    dtype: str  # of its numbers, when they are read
    shape: tuple[Count, ...]  # of what the layer reads of the tensor
    spans: tuple[Span, ...]  # its bytes, with those of its scales


class Cost(Record, frozen=True):
    """The estimated time and memory of a task."""

    seconds: float  # of one core
    num_bytes: Count  # of memory, at most


class ManifestRow(Record, frozen=True):
    """A row of a sweep: one layer or expert, its sizes and its stored tensors."""

    index: Count
    name: str
    kind: str  # `gated` or `plain`
    activation: str
    d_in: Count
    d_hidden: Count
    d_out: Count
    parts: tuple[StoredPart, ...]
    num_bytes: Count  # that are read
    costs: dict[str, Cost]  # by task

    @property
    def family(self) -> str:
        """The kind, activation and sizes that layers share which are compared with each other."""
        return f"{self.kind} {self.activation} {self.d_in} → {self.d_hidden} → {self.d_out}"


class SweptConversion(Record, frozen=True):
    """A bilinear layer in the place of another one."""

    name: str
    inputs: str  # what it was fitted to and measured on: `N(0, I)` or `activations`
    rows: Count  # that R² is measured on; nothing was fitted to them
    r_squared: float | None  # null for −∞, where a constant is missed


class TracedDirections(Record, frozen=True):
    """The leading output directions of a bilinear MLP, as tokens."""

    name: str
    readings: tuple[DirectionReading, ...]


class SweepOptions(Record, frozen=True):
    """The options of a sweep, the same for every layer; they decide the results, to the byte."""

    tasks: tuple[str, ...]
    baseline: str | None = None  # the model that `compare` compares with
    activations: str | None = None  # folder of NAME.safetensors, what each layer sees
    directions: Count = 16  # leading output directions that `decompose` and `trace` read
    top: Count = 5  # eigenpairs of each
    layer_steps: Count = 0  # of training behind the closed form (`convert`)
    samples: Count = 2000  # inputs that R² is measured on
    null_samples: Count = 19  # draws of the null distribution of `audit`
    threshold: float = 0.9  # R² from which an approximation is read
    seed: Integer = 0
    threads: Count = 1  # of one piece of work: another number may change the last bits


class Manifest(Document, frozen=True, kw_only=True):
    """The head of a manifest; its rows follow, one a line."""

    kind: Literal["sweep_manifest"] = "sweep_manifest"
    path: str  # of the model, as it was given
    source: Source  # with `headers_sha256` where the weights were not read
    # model → file → SHA-256 of its header, or what a store says of it; "" for all weights
    models: dict[str, dict[str, str]]
    options: SweepOptions
    release: str  # of bilens
    num_rows: Count
    # what is around the layers and not as in the baseline: `order`, `answers`, `parts`, `unknown`;
    # empty where all of it is the same, or nothing is compared
    around: str = ""


class SweepResult(Document, frozen=True, kw_only=True):
    """The result of one task on one layer."""

    kind: Literal["sweep_result"] = "sweep_result"
    manifest: str  # SHA-256
    row: Count
    name: str
    task: str
    refused: str | None  # why there is nothing, said of the layer; null where there is
    numbers: dict[str, float | None]  # a few of `record`
    record: dict[str, Any] | None  # as the task writes it for a single layer
