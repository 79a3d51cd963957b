"""The eigenpairs of a layer's outputs, and how close quadratic maps come to models and layers."""

from typing import Literal

from bilens.records.base import Count, Document, Integer, Record, require
from bilens.records.common import DataOrigin, NullInterval, Run, Source, TextOrigin


class EigenPair(Record, frozen=True):
    """One eigenvalue of one output."""

    eigenvalue: float
    explained: float  # λ² / ‖Q‖²
    residual: float  # ‖Qv − λv‖
    converged: bool
    subspace_size: Count  # 1, or the number of eigenvalues that cannot be told apart


class FormSpectrum(Record, frozen=True):
    """The leading eigenpairs of one output direction."""

    name: str
    pairs: tuple[EigenPair, ...]
    explained: float | None  # share of ‖Q‖² in the pairs shown; null where the solver failed
    effective_rank: float | None  # null where the whole spectrum is not known
    effective_rank_null: NullInterval | None  # under the rotation null; null if it was not sampled
    frobenius_norm: float | None
    trace: float | None
    linear_norm: float
    constant: float
    complete: bool  # proven: no eigenvalue that belongs to the selection was missed
    proof: str  # how
    status: str  # how the work ended, in words


class ApproximationQuality(Record, frozen=True):
    """How far a quadratic map stands for a layer that is not quadratic."""

    activation: str
    derivation: str
    assumed_input: str
    r_squared: float  # on samples of the assumed input
    standard_error: float
    linear_r_squared: float  # of the affine part of the map alone
    threshold: float  # below it the map is not read


class LayerDecomposition(Document, frozen=True, kw_only=True):
    """Leading eigenpairs of every output direction that was asked for."""

    kind: Literal["layer decomposition"] = "layer decomposition"
    layer: str
    basis: str  # `input`, `embedding` or `whitened`
    output_kind: str  # `logits`, `neurons` inside a model, or `outputs` of a layer by itself
    reading: str  # `class-centred`, `raw` or `contrast`
    which: str  # the end of the spectrum
    spectrum: str  # `whole`, or `top` where only the leading pairs were computed
    method: str
    precision: str
    d_in: Count
    d_hidden: Count
    d_out: Count
    null_samples: Count  # rotations for the null intervals of effective ranks; 0 for none
    outputs: tuple[FormSpectrum, ...]
    approximation: ApproximationQuality | None = None  # null where the map is the layer
    about_input: str = ""  # what comes in, as far as it needs words: the norm before the layer


class LayerPlan(Record, frozen=True):
    """How a layer would be decomposed, and what that costs."""

    layer: str
    basis: str  # as of a `LayerDecomposition`
    output_kind: str
    reading: str
    d_in: Count
    d_hidden: Count
    num_outputs: Count
    num_pairs: Count  # of each output
    spectrum: str  # `whole` or `top`
    null_samples: Count  # rotations for the null intervals of effective ranks
    method: str
    precision: str
    batch: Count  # outputs worked on together
    peak_bytes: Count  # beside the model, at most
    limit_bytes: Count
    reason: str  # for the method
    approximation: ApproximationQuality | None  # null where the map is the layer


class Score(Record, frozen=True):
    """R²; null for −∞, where a constant is missed."""

    value: float | None
    standard_error: float | None


class DegreeScores(Record, frozen=True):
    """R² by degree of one fit, on some inputs."""

    fit: str  # which one of the ladder of `QuadraticFit`
    rows: Count  # inputs
    linear: Score  # of the affine part of the map
    quadratic: Score  # of the whole map
    trimmed: Score  # of the whole map, without the 0.1 % of rows of largest output and massive ones
    median: tuple[float | None, ...]  # of the median row, and the ends of its 95 % interval
    outputs: tuple[float | None, ...]  # of the whole map, for each output


class LargeRow(Record, frozen=True):
    """A row with one of the largest outputs: a sink token, where it stands far out."""

    output: float  # ‖y‖
    position: Count  # in its text, from 0
    token: Integer  # −1 where it is none
    text: str  # of the token


class SeenInputs(Record, frozen=True):
    """Statistics of the inputs and outputs of a layer where it was fitted."""

    fitted: Count  # rows
    kurtosis: tuple[float, float]  # of the median input and the largest; 3 for a normal one
    norm: tuple[float, float]  # ‖x‖ of the median row and the largest
    output: float  # median ‖y‖
    massive: Count  # rows whose ‖y‖ is more than 100 times that
    largest: tuple[LargeRow, ...]  # by falling ‖y‖


class LayerFit(Record, frozen=True):
    """The quadratic approximation of the whole of a model, or of one layer."""

    name: str  # `model` for the whole
    activation: str | None  # null, like gated and the sizes, for the whole
    gated: bool | None
    d_in: Count | None
    d_hidden: Count | None
    d_out: Count | None
    exact: bool  # the map is the layer
    derivation: str
    assumed_input: str  # the inputs that R² is of, in words
    chosen: str  # the fit that the map is
    ladder: tuple[DegreeScores, ...]  # of each fit on the same inputs, held out from data
    missing: tuple[str, ...]  # what could not be fitted, and what it needs
    threshold: float  # R² from which a map stands for what it was fitted to
    usable: bool  # R² reaches it
    seen: SeenInputs | None = None  # what it was fitted to; null without text

    @property
    def scores(self) -> DegreeScores:
        return next(one for one in self.ladder if one.fit == self.chosen)


class QuadraticFits(Document, frozen=True, kw_only=True):
    """The quadratic approximations of a model."""

    kind: Literal["quadratic fit"] = "quadratic fit"
    source: Source  # where the weights come from
    num_rows: Count | None  # of the data; null without
    fits: tuple[LayerFit, ...]  # of the whole where it is one, then of each layer
    reproduce: Run  # what it takes to run the same again
    text: TextOrigin | None = None  # that the layers read; null without
    data: DataOrigin | None = None  # whose rows they are; null without, or where it was not said

    def __post_init__(self) -> None:
        require(len(self.fits) > 0, "fits is empty")
