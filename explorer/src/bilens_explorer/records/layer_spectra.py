"""A layer in the explorer: its outputs' spectra, eigenvectors and interactions."""

from typing import Literal

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


class LayerRow(Record, frozen=True):
    """One layer of a model, without reading its weights, and what the last audit of them says."""

    name: str
    reads: str  # `inputs`, `neurons`, `residual stream` or `activations`
    gives: str  # `logits`, `neurons` or `outputs`
    activation: str
    gated: bool
    exact: bool  # its map is the layer, not an approximation
    d_in: Count
    d_hidden: Count
    d_out: Count
    parameters: Count
    outputs: tuple[str, ...] | None  # their names; null where they have numbers alone
    # R² of the quadratic approximation; null, as all that follows, where no audit says it
    r_squared: float | None = None
    usable: bool | None = None  # R² reaches what the audit asked for
    norm: float | None = None  # ‖B‖ of the map
    rank: float | None = None  # effective rank along the outputs
    dead: Count | None = None  # hidden units that do nothing
    broken: str | None = None  # why it cannot be read


class LayerTable(Document, frozen=True, kw_only=True):
    """The layers of a model."""

    kind: Literal["layers"] = "layers"
    weights_sha256: str
    audit: Count | None  # the last one of these weights; null where there is none
    layers: tuple[LayerRow, ...]  # in the order of the model


class Spectrum(Document, frozen=True, kw_only=True):
    """The eigenvalues of one output of a layer, in the input basis."""

    kind: Literal["spectrum"] = "spectrum"
    layer: str
    reading: str  # `class-centred`, `raw` or `contrast`
    about_input: str  # what comes in, as far as it needs words: the norm before the layer
    approximation: ApproximationQuality | None  # null where the map is the layer
    d_in: Count
    whole: bool  # all eigenvalues above the rounding of the factors; else the leading ones
    form: FormSpectrum  # its pairs by falling |λ|
    # ‖Q − Q_k‖ for k = 0, 1, …, as a proven upper limit; null where nothing is proven. Over all
    # inputs with ‖x‖ ≤ r, |q(x) − q_k(x)| is at most r² times that
    bounds: tuple[float | None, ...]


class NullBand(Document, frozen=True, kw_only=True):
    """The spectrum of one output that chance would give, under the rotation null."""

    kind: Literal["null band"] = "null band"
    samples: Count  # random rotations; 0 where they would take too long for a page
    level: float
    lower: float | None = None  # one-sided edge of the smallest eigenvalue; null without samples
    upper: float | None = None  # of the largest
    effective_rank: NullInterval | None = None


class ViewedVector(Record, frozen=True):
    """An eigenvector of one output, as it is drawn."""

    rank: Count  # position by falling |λ|, from 1
    eigenvalue: float
    explained: float  # λ² / ‖Q‖²
    residual: float  # ‖Qv − λv‖
    subspace_size: Count  # 1, or how many eigenvalues cannot be told apart
    vector: Numbers  # length 1, largest component positive; rounded to five decimals, for drawing
    tokens: TokenEnds | None  # cosines of the embeddings with it; null where there are no tokens


class ViewedVectors(Document, frozen=True, kw_only=True):
    """Eigenvectors of one output of a layer: the leading ones of each sign, or one."""

    kind: Literal["eigenvectors"] = "eigenvectors"
    weights_sha256: str
    shape: tuple[Count, Count] | None  # rows and columns of an image; null where it is none
    shape_assumed: bool  # nothing says so, and a square was assumed
    input_names: tuple[str, ...] | None  # null where inputs have numbers alone
    vectors: tuple[ViewedVector, ...]


class TruncationCurve(Document, frozen=True, kw_only=True):
    """Accuracies with fewer eigenvectors, from the last audit of these weights with data."""

    kind: Literal["truncation"] = "truncation"
    audit: Count | None  # null where there is none
    data: str  # its name
    inputs: Count  # of the data
    points: tuple[TruncationPoint, ...]  # by rising k; every class keeps k


class InteractionView(Document, frozen=True, kw_only=True):
    """Q of one output of a layer between some of its inputs."""

    kind: Literal["interactions"] = "interactions"
    layer: str
    output: str
    reading: str  # as of a `Spectrum`
    approximation: ApproximationQuality | None  # null where the map is the layer
    inputs: tuple[Count, ...]  # by falling norm of their rows of Q, or as asked for
    names: tuple[str, ...] | None  # of these; null where inputs have numbers alone
    shape: tuple[Count, Count] | None  # of the image that they are pixels of; null for none
    # the coefficient of x_i x_j is twice the entry, of x_i² the entry; rounded to six digits
    matrix: tuple[Numbers, ...]
    clustered: tuple[Count, ...]  # positions in `inputs`, alike ones side by side
    d_in: Count
    share: float  # of ‖Q‖² in the matrix
