"""A sweep over the layers of a model: what there is to do, and what came of each piece."""

from typing import Annotated, Any, Literal

from bilens.records.base import Count, Document, Integer, Record
from bilens.records.common import Source
from bilens.records.mlp_trace import DirectionReading


class Span(Record, frozen=True):
    """A range of bytes of a file."""

    file: Annotated[str, "below the model"]
    start: Annotated[Count, "first byte"]
    stop: Annotated[Count, "byte behind the last one"]


class StoredPart(Record, frozen=True):
    """A weight or bias of a layer, and where it lies."""

    role: Annotated[str, "`gate`, `up`, `down`, or one of them with `_bias`"]
    name: Annotated[str, "of the tensor"]
    dtype: Annotated[str, "of its numbers, when they are read"]
    shape: Annotated[tuple[Count, ...], "of what the layer reads of the tensor"]
    spans: Annotated[tuple[Span, ...], "its bytes, with those of its scales"]


class Cost(Record, frozen=True):
    """The estimated time and memory of a task."""

    seconds: Annotated[float, "of one core"]
    num_bytes: Annotated[Count, "of memory, at most"]


class ManifestRow(Record, frozen=True):
    """A row of a sweep: one layer or expert, its sizes and its stored tensors."""

    index: Annotated[Count, "from 0"]
    name: Annotated[str, "of the layer"]
    kind: Annotated[str, "`gated` or `plain`"]
    activation: Annotated[str, "`identity` where the layer is exactly quadratic"]
    d_in: Annotated[Count, "numbers in an input"]
    d_hidden: Annotated[Count, "hidden units"]
    d_out: Annotated[Count, "outputs"]
    parts: Annotated[tuple[StoredPart, ...], "its weights and biases"]
    num_bytes: Annotated[Count, "that are read"]
    costs: Annotated[dict[str, Cost], "by task"]

    @property
    def family(self) -> str:
        """The kind, activation and sizes that layers share which are compared with each other."""
        return f"{self.kind} {self.activation} {self.d_in} → {self.d_hidden} → {self.d_out}"


class SweptConversion(Record, frozen=True):
    """A bilinear layer in the place of another one."""

    name: Annotated[str, "of the layer"]
    inputs: Annotated[str, "what it was fitted to and measured on: `N(0, I)` or `activations`"]
    rows: Annotated[Count, "that R² is measured on; nothing was fitted to them"]
    r_squared: Annotated[float | None, "null for −∞, where a constant is missed"]


class TracedDirections(Record, frozen=True):
    """The leading output directions of a bilinear MLP, as tokens."""

    name: Annotated[str, "of the layer"]
    readings: Annotated[tuple[DirectionReading, ...], "the leading ones first"]


class SweepOptions(Record, frozen=True):
    """The options of a sweep, the same for every layer; they decide the results, to the byte."""

    tasks: Annotated[tuple[str, ...], "what is done with each layer"]
    baseline: Annotated[str | None, "the model that `compare` compares with"] = None
    activations: Annotated[str | None, "folder of NAME.safetensors, what each layer sees"] = None
    directions: Annotated[Count, "leading output directions that `decompose` and `trace` read"] = 16
    top: Annotated[Count, "eigenpairs of each"] = 5
    layer_steps: Annotated[Count, "of training behind the closed form (`convert`)"] = 0
    samples: Annotated[Count, "inputs that R² is measured on"] = 2000
    null_samples: Annotated[Count, "draws of the null distribution of `audit`"] = 19
    threshold: Annotated[float, "R² from which an approximation is read"] = 0.9
    seed: Annotated[Integer, "of everything that is drawn at random"] = 0
    threads: Annotated[Count, "of one piece of work: another number may change the last bits"] = 1


class Manifest(Document, frozen=True, kw_only=True):
    """The head of a manifest; its rows follow, one a line."""

    kind: Annotated[Literal["sweep_manifest"], "of the document"] = "sweep_manifest"
    path: Annotated[str, "of the model, as it was given"]
    source: Annotated[Source, "with `headers_sha256` where the weights were not read"]
    models: Annotated[dict[str, dict[str, str]], 'model → file → SHA-256 of its header; "" for all']
    options: Annotated[SweepOptions, "of the sweep"]
    release: Annotated[str, "of bilens"]
    num_rows: Annotated[Count, "layers to be read"]
    around: Annotated[
        str, "what differs around the layers: `order`, `answers`, `parts`, `unknown`; else empty"
    ] = ""


class SweepResult(Document, frozen=True, kw_only=True):
    """The result of one task on one layer."""

    kind: Annotated[Literal["sweep_result"], "of the document"] = "sweep_result"
    manifest: Annotated[str, "SHA-256"]
    row: Annotated[Count, "position in the manifest"]
    name: Annotated[str, "of the layer"]
    task: Annotated[str, "what was done"]
    refused: Annotated[str | None, "why there is nothing, said of the layer; null where there is"]
    numbers: Annotated[dict[str, float | None], "a few of `record`"]
    record: Annotated[dict[str, Any] | None, "as the task writes it for a single layer"]
