"""The eigenpairs of a layer's outputs, and how close quadratic maps come to models and layers."""

from typing import Annotated, Literal

from bilens.records.base import Count, Document, Integer, Record, require
from bilens.records.common import DataOrigin, FileInterval, NullInterval, Run, Source, TextOrigin


class EigenPair(Record, frozen=True):
    """One eigenvalue of one output."""

    eigenvalue: Annotated[float, "λ"]
    explained: Annotated[float, "λ² / ‖Q‖²"]
    residual: Annotated[float, "‖Qv − λv‖"]
    converged: Annotated[bool, "the residual is within the tolerance"]
    subspace_size: Annotated[Count, "1, or the number of eigenvalues that cannot be told apart"]


class FormSpectrum(Record, frozen=True):
    """The leading eigenpairs of one output direction."""

    name: Annotated[str, "of the output"]
    pairs: Annotated[tuple[EigenPair, ...], "by falling |λ|; those of the end that was asked for"]
    explained: Annotated[float | None, "share of ‖Q‖² in the pairs; null where the solver failed"]
    effective_rank: Annotated[float | None, "null where the whole spectrum is not known"]
    effective_rank_null: Annotated[NullInterval | None, "under rotations; null if not sampled"]
    frobenius_norm: Annotated[float | None, "‖Q‖; null where the solver failed"]
    trace: Annotated[float | None, "Σ λ; null where the solver failed"]
    linear_norm: Annotated[float, "‖b‖"]
    constant: Annotated[float, "c"]
    complete: Annotated[bool, "proven: no eigenvalue that belongs to the selection was missed"]
    proof: Annotated[str, "how"]
    status: Annotated[str, "how the work ended, in words"]


class ApproximationQuality(Record, frozen=True):
    """How far a quadratic map stands for a layer that is not quadratic."""

    activation: Annotated[str, "of the layer"]
    derivation: Annotated[str, "how the map was found"]
    assumed_input: Annotated[str, "the inputs that R² is of, in words"]
    r_squared: Annotated[float, "on samples of the assumed input"]
    standard_error: Annotated[float, "of `r_squared`"]
    linear_r_squared: Annotated[float, "of the affine part of the map alone"]
    threshold: Annotated[float, "below it the map is not read"]


class LayerDecomposition(Document, frozen=True, kw_only=True):
    """Leading eigenpairs of every output direction that was asked for."""

    kind: Annotated[Literal["layer decomposition"], "of the document"] = "layer decomposition"
    layer: Annotated[str, "name of the layer"]
    basis: Annotated[str, "`input`, `embedding` or `whitened`"]
    output_kind: Annotated[str, "`logits`, `neurons` inside a model, or `outputs` of a lone layer"]
    reading: Annotated[str, "`class-centred`, `raw` or `contrast`"]
    which: Annotated[str, "the end of the spectrum"]
    spectrum: Annotated[str, "`whole`, or `top` where only the leading pairs were computed"]
    method: Annotated[str, "of the solver"]
    precision: Annotated[str, "the dtype that the solver works in"]
    d_in: Annotated[Count, "numbers in an input"]
    d_hidden: Annotated[Count, "hidden units"]
    d_out: Annotated[Count, "outputs"]
    null_samples: Annotated[Count, "rotations for null intervals of effective ranks; 0 for none"]
    outputs: Annotated[tuple[FormSpectrum, ...], "one entry for each output that was asked for"]
    approximation: Annotated[ApproximationQuality | None, "null where the map is the layer"] = None
    about_input: Annotated[str, "what comes in, such as the norm before the layer"] = ""


class LayerPlan(Record, frozen=True):
    """How a layer would be decomposed, and what that costs."""

    layer: Annotated[str, "name of the layer"]
    basis: Annotated[str, "as of a `LayerDecomposition`"]
    output_kind: Annotated[str, "as of a `LayerDecomposition`"]
    reading: Annotated[str, "as of a `LayerDecomposition`"]
    d_in: Annotated[Count, "numbers in an input"]
    d_hidden: Annotated[Count, "hidden units"]
    num_outputs: Annotated[Count, "outputs to be decomposed"]
    num_pairs: Annotated[Count, "of each output"]
    spectrum: Annotated[str, "`whole` or `top`"]
    null_samples: Annotated[Count, "rotations for the null intervals of effective ranks"]
    method: Annotated[str, "of the solver"]
    precision: Annotated[str, "the dtype that the solver works in"]
    batch: Annotated[Count, "outputs worked on together"]
    peak_bytes: Annotated[Count, "beside the model, at most"]
    limit_bytes: Annotated[Count, "memory that is allowed"]
    reason: Annotated[str, "for the method"]
    approximation: Annotated[ApproximationQuality | None, "null where the map is the layer"]


class Score(Record, frozen=True):
    """R²; null for −∞, where a constant is missed."""

    value: Annotated[float | None, "R²"]
    standard_error: Annotated[float | None, "of R²; null where it has none"]


class DegreeScores(Record, frozen=True):
    """R² by degree of one fit, on some inputs."""

    fit: Annotated[str, "which one of the ladder of `QuadraticFit`"]
    rows: Annotated[Count, "inputs"]
    linear: Annotated[Score, "of the affine part of the map"]
    quadratic: Annotated[Score, "of the whole map"]
    trimmed: Annotated[Score, "without the 0.1% of rows of largest output and massive ones"]
    median: Annotated[tuple[float | None, ...], "of the median row, and its 95% interval"]
    outputs: Annotated[tuple[float | None, ...], "of the whole map, for each output"]


class LargeRow(Record, frozen=True):
    """A row with one of the largest outputs: a sink token, where it stands far out."""

    output: Annotated[float, "‖y‖"]
    position: Annotated[Count, "in its text, from 0"]
    token: Annotated[Integer, "−1 where it is none"]
    text: Annotated[str, "of the token"]


class SeenInputs(Record, frozen=True):
    """Statistics of the inputs and outputs of a layer where it was fitted."""

    fitted: Annotated[Count, "rows"]
    kurtosis: Annotated[tuple[float, float], "of the median and the largest input; 3 if normal"]
    norm: Annotated[tuple[float, float], "‖x‖ of the median row and the largest"]
    output: Annotated[float, "median ‖y‖"]
    massive: Annotated[Count, "rows whose ‖y‖ is more than 100 times that"]
    largest: Annotated[tuple[LargeRow, ...], "by falling ‖y‖"]


class LayerFit(Record, frozen=True):
    """The quadratic approximation of the whole of a model, or of one layer."""

    name: Annotated[str, "`model` for the whole"]
    activation: Annotated[str | None, "null, like gated and the sizes, for the whole"]
    gated: Annotated[bool | None, "the layer multiplies two branches"]
    d_in: Annotated[Count | None, "numbers in an input"]
    d_hidden: Annotated[Count | None, "hidden units"]
    d_out: Annotated[Count | None, "outputs"]
    exact: Annotated[bool, "the map is the layer"]
    derivation: Annotated[str, "how the map was found"]
    assumed_input: Annotated[str, "the inputs that R² is of, in words"]
    chosen: Annotated[str, "the fit that the map is"]
    ladder: Annotated[tuple[DegreeScores, ...], "of each fit on the same held-out inputs"]
    missing: Annotated[tuple[str, ...], "what could not be fitted, and what it needs"]
    threshold: Annotated[float, "R² from which a map stands for what it was fitted to"]
    usable: Annotated[bool, "R² reaches it"]
    seen: Annotated[SeenInputs | None, "what it was fitted to; null without text"] = None
    over_files: Annotated[FileInterval | None, "of R²; null where it is of no files"] = None

    @property
    def scores(self) -> DegreeScores:
        return next(one for one in self.ladder if one.fit == self.chosen)


class QuadraticFits(Document, frozen=True, kw_only=True):
    """The quadratic approximations of a model."""

    kind: Annotated[Literal["quadratic fit"], "of the document"] = "quadratic fit"
    source: Annotated[Source, "where the weights come from"]
    num_rows: Annotated[Count | None, "of the data; null without"]
    fits: Annotated[tuple[LayerFit, ...], "of the whole where it is one, then of each layer"]
    reproduce: Annotated[Run, "what it takes to run the same again"]
    text: Annotated[TextOrigin | None, "that the layers read; null without"] = None
    data: Annotated[DataOrigin | None, "whose rows they are; null without, or if not said"] = None

    def __post_init__(self) -> None:
        require(len(self.fits) > 0, "fits is empty")
