"""A layer in the explorer: its outputs' spectra, eigenvectors and interactions."""

from typing import Annotated, Literal

from bilens.records import (
    ApproximationQuality,
    Count,
    Document,
    FormSpectrum,
    NullInterval,
    Numbers,
    Record,
    TokenEnds,
    TruncationPoint,
)

Shape = tuple[Count, Count]


class LayerRow(Record, frozen=True):
    """One layer of a model, without reading its weights, and what the last audit of them says."""

    name: Annotated[str, "as `bl.load(...).layers` calls it"]
    reads: Annotated[str, "what comes in: `inputs`, `neurons`, `residual stream` or `activations`"]
    gives: Annotated[str, "what goes out: `logits`, `neurons` or `outputs`"]
    activation: Annotated[str, "name of its function"]
    gated: Annotated[bool, "whether it multiplies two branches"]
    exact: Annotated[bool, "whether its map is the layer, and no approximation"]
    d_in: Annotated[Count, "numbers that it reads"]
    d_hidden: Annotated[Count, "hidden units"]
    d_out: Annotated[Count, "numbers that it gives"]
    parameters: Annotated[Count, "numbers in its weights"]
    outputs: Annotated[tuple[str, ...] | None, "their names; null where they have numbers alone"]
    r_squared: Annotated[float | None, "of the approximation; null where no audit says it"] = None
    usable: Annotated[bool | None, "whether R² reaches what the audit asked for"] = None
    seen: Annotated[bool | None, "whether R² is of what the layer receives; null likewise"] = None
    norm: Annotated[float | None, "‖B‖ of the map; null where no audit says it"] = None
    rank: Annotated[float | None, "effective rank along the outputs; null as the norm"] = None
    dead: Annotated[Count | None, "hidden units that do nothing; null as the norm"] = None
    broken: Annotated[str | None, "why it cannot be read"] = None


class LayerTable(Document, frozen=True, kw_only=True):
    """The layers of a model."""

    kind: Annotated[Literal["layers"], "of the document"] = "layers"
    weights_sha256: Annotated[str, "of the weights file"]
    audit: Annotated[Count | None, "the last one of these weights; null where there is none"]
    layers: Annotated[tuple[LayerRow, ...], "in the order of the model"]


class Spectrum(Document, frozen=True, kw_only=True):
    """The eigenvalues of one output of a layer, in the input basis."""

    kind: Annotated[Literal["spectrum"], "of the document"] = "spectrum"
    layer: Annotated[str, "its name"]
    reading: Annotated[str, "`class-centred`, `raw` or `contrast`"]
    about_input: Annotated[str, "what comes in, where it needs words: the norm before it"]
    approximation: Annotated[ApproximationQuality | None, "null where the map is the layer"]
    d_in: Annotated[Count, "numbers that the layer reads"]
    whole: Annotated[bool, "whether all that are no rounding are here; else the leading ones"]
    form: Annotated[FormSpectrum, "its pairs by falling |λ|"]
    bounds: Annotated[
        tuple[float | None, ...],
        "‖Q − Q_k‖ for k = 0, 1, … at most: |q(x) − q_k(x)| ≤ ‖x‖² times it; null: not proven",
    ]


class NullBand(Document, frozen=True, kw_only=True):
    """The spectrum of one output that chance would give, under the rotation null."""

    kind: Annotated[Literal["null band"], "of the document"] = "null band"
    samples: Annotated[Count, "random rotations; 0 where they would take too long for a page"]
    level: Annotated[float, "share of the rotations that stay within an edge"]
    lower: Annotated[float | None, "edge of the smallest eigenvalue; null without samples"] = None
    upper: Annotated[float | None, "edge of the largest eigenvalue; null without samples"] = None
    effective_rank: Annotated[NullInterval | None, "its null interval; null without samples"] = None


class ViewedVector(Record, frozen=True):
    """An eigenvector of one output, as it is drawn."""

    rank: Annotated[Count, "position by falling |λ|, from 1"]
    eigenvalue: Annotated[float, "λ, with its sign"]
    explained: Annotated[float, "λ² / ‖Q‖²"]
    residual: Annotated[float, "‖Qv − λv‖"]
    subspace_size: Annotated[Count, "1, or how many eigenvalues cannot be told apart"]
    vector: Annotated[Numbers, "of length 1, its largest component positive; rounded for drawing"]
    tokens: Annotated[TokenEnds | None, "cosines of embeddings with it; null without tokens"]


class ViewedVectors(Document, frozen=True, kw_only=True):
    """Eigenvectors of one output of a layer: the leading ones of each sign, or one."""

    kind: Annotated[Literal["eigenvectors"], "of the document"] = "eigenvectors"
    weights_sha256: Annotated[str, "of the weights file"]
    shape: Annotated[Shape | None, "rows and columns of an image; null for none"]
    shape_assumed: Annotated[bool, "nothing says so, and a square was assumed"]
    input_names: Annotated[tuple[str, ...] | None, "null where inputs have numbers alone"]
    vectors: Annotated[tuple[ViewedVector, ...], "by rising rank"]


class TruncationCurve(Document, frozen=True, kw_only=True):
    """Accuracies with fewer eigenvectors, from the last audit of these weights with data."""

    kind: Annotated[Literal["truncation"], "of the document"] = "truncation"
    audit: Annotated[Count | None, "null where there is none"]
    data: Annotated[str, "its name"]
    inputs: Annotated[Count, "of the data"]
    points: Annotated[tuple[TruncationPoint, ...], "by rising k; every class keeps k"]


class InteractionView(Document, frozen=True, kw_only=True):
    """Q of one output of a layer between some of its inputs."""

    kind: Annotated[Literal["interactions"], "of the document"] = "interactions"
    layer: Annotated[str, "its name"]
    output: Annotated[str, "its name"]
    reading: Annotated[str, "as of a `Spectrum`"]
    approximation: Annotated[ApproximationQuality | None, "null where the map is the layer"]
    inputs: Annotated[tuple[Count, ...], "by falling norm of their rows of Q, or as asked for"]
    names: Annotated[tuple[str, ...] | None, "of these; null where inputs have numbers alone"]
    shape: Annotated[Shape | None, "rows and columns of the image of the inputs; null for none"]
    matrix: Annotated[
        tuple[Numbers, ...], "of x_i x_j half its coefficient, of x_i² the whole one; six digits"
    ]
    d_in: Annotated[Count, "numbers that the layer reads"]
    share: Annotated[float, "of ‖Q‖² in the matrix"]
