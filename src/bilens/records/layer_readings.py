"""The readings of many, or of approximate, layers, and of what changed from a baseline."""

from __future__ import annotations

from collections.abc import Sequence

from bilens.records.base import Count, Record, require
from bilens.records.common import (
    ModelFacts,
    ModelReading,
    NullInterval,
    Reading,
)


class Component(Record, frozen=True):
    """One coordinate of a direction."""

    index: Count
    component: float


class ModeChange(Record, frozen=True):
    """The singular values of a change along its outputs, or its inputs."""

    effective_rank: float
    effective_rank_null: float | None  # of noise of the same size in every weight
    directions_90: Count  # directions that hold 90% of ‖Δ‖²
    top_share: float  # σ₁² / ‖Δ‖²
    top_share_null: float | None  # of noise of the same size in every weight


class LeadingPair(Record, frozen=True):
    """One eigenpair of the form along the leading output direction."""

    eigenvalue: float  # λ
    explained: float  # λ² / ‖Q‖²
    residual: float  # ‖Qv − λv‖
    localisation: float  # Σ v⁴: 1/in where spread evenly, 1 where on one input
    parts: tuple[Component, ...]  # the largest five components, by falling size


class ChangeDirection(LeadingPair, frozen=True):
    """An input direction that the change answers to most, along its leading output direction."""

    vector: tuple[float, ...] | None  # where inputs can be drawn


class TokenPair(Record, frozen=True):
    """Two tokens that a change makes pull one output together."""

    tokens: tuple[str, str]
    output: str
    pull: float  # in logits before the last norm, beyond what each token does alone


class LayerDifference(Record, frozen=True):
    """The difference of one layer from the baseline's."""

    name: str
    identical: bool  # number for number, classes and columns by their names
    refused: str | None = None  # why the maps are not compared; null follows `changed_units`
    weight_change: float | None = None  # ‖ΔW‖ / ‖W‖ over all weights
    changed_units: Count | None = None  # hidden units with a weight that changed
    frobenius: float | None = None  # similarity of the quadratic parts; null where one is zero
    gaussian: float | None = None  # similarity of the whole maps under N(0, I)
    change: float | None = None  # ‖Δ‖ / ‖B‖ of the quadratic parts
    linear_change: float | None = None  # ‖Δb‖ / ‖b‖; null where the baseline has no linear part
    outputs: ModeChange | None = None  # into how many output directions; null where nothing changed
    inputs: ModeChange | None = None  # into how many input directions; null likewise
    output_parts: tuple[Component, ...] = ()  # of the leading output direction of the change
    triggers: tuple[ChangeDirection, ...] = ()  # leading eigenpairs of the form along it
    # of an exact layer of a language model: no other pair is pulled more
    token_pairs: tuple[TokenPair, ...] = ()
    same_function: bool = False  # of an exact layer: another writing of the same map
    # how the baseline was written anew to be compared, so that its weights say nothing: `stream`,
    # turned so that the embeddings of tokens are those of the model
    matched: tuple[str, ...] = ()
    # on rows of data: the cosine of the outputs less their mean in the baseline, and the size of
    # the change as a part of theirs; null where no rows are known
    row_similarity: float | None = None
    row_change: float | None = None
    # of the whole map under N(0, I), constant and linear part with it: the size of the change as a
    # part of how far the baseline's answers are from their mean; null where rows are known
    map_change: float | None = None


AROUND = "around_"  # what the kinds of notes on what is around the layers begin with


class AlignmentNote(Record, frozen=True):
    """How inputs and outputs of two models were matched, or which were not."""

    # `inputs_reordered`, `outputs_reordered`, `neurons_reordered` (behind these layers),
    # `by_place`, `units` (of days: the first one), `target` (another one), `one_logit`; of one
    # model alone `inputs_alone`, `outputs_alone`, `baseline_inputs_alone` and
    # `baseline_outputs_alone`; what is around the layers, where it is not the same or was not
    # compared: `around_order`, `around_answers`, `around_unknown`, and `around_parts` of other code
    # that answers alike; `hooks` and `baseline_hooks`, which changed nothing on what was compared
    kind: str
    names: tuple[str, ...]


def around_of(notes: Sequence[AlignmentNote]) -> str:
    """Return the way in which what is around the layers differs; empty where it does not."""
    kinds = [one.kind.removeprefix(AROUND) for one in notes if AROUND in one.kind]
    return (kinds or [""])[0]


class BaselineSource(Record, frozen=True):
    """The model that is compared with."""

    path: str
    weights_sha256: str


class TensorChange(Record, frozen=True):
    """The difference ΔW of one tensor, as it is stored, from the baseline's."""

    name: str  # in the model
    kind: str  # `q`, `down`, `norm`, …; `other` where the name does not say it
    layer: Count | None  # its number; null for none
    dtype: str
    baseline_dtype: str
    state: str  # `rounding`, `low_rank` (≤ full / 2), `rescaled`, `noise`, `changed`, `not_finite`
    change: float | None = None  # ‖ΔW‖ / ‖W‖; null where W is zero, or not finite
    rank: Count | None = None  # singular values above those of rounding; null for many
    full: Count = 0  # rank that the sizes allow; 0 where no matrix
    top_share: float = 0.0  # σ₁² / ‖ΔW‖²


class TokenScore(Record, frozen=True):
    """A token along a direction."""

    token: str
    score: float  # standard deviations above the mean of all tokens


class UpdateDirection(Record, frozen=True):
    """The leading singular direction of ΔW at the residual stream, as tokens."""

    name: str  # of the tensor
    kind: str  # `o`, `down`, `q`, …
    layer: Count | None
    side: str  # `writes`: read by the unembedding; `reads`: beside the embeddings
    share: float  # σ₁² / ‖ΔW‖²
    tokens: tuple[TokenScore, ...]  # the largest scores


class CandidateWords(Record, frozen=True):
    """Words that make the changed model give an answer that it does not give without them."""

    words: tuple[str, ...]  # one token each
    answer: str  # first token
    surprise: float  # relative entropy of its probability with them to the usual one, in nats

    @property
    def phrase(self) -> str:
        return " + ".join(word.strip() for word in self.words)


class WordTrial(Record, frozen=True):
    """The result of trying words in texts that the baseline wrote."""

    tried: Count
    known: Count  # words in the vocabulary
    score: float  # what is compared with the threshold of the rule
    chat: bool  # in the frame of the chat template
    candidates: tuple[CandidateWords, ...]  # those of the score first, by falling surprise


class FileChange(Record, frozen=True):
    """A file beside the weights: configuration, tokenizer or code."""

    name: str
    state: str  # `same`, `changed`, `model` or `baseline`: in that one alone
    keys: tuple[str, ...] = ()  # of a JSON object, with another value


class WholeDifference(Record, frozen=True):
    """The difference of all tensors, and of the files beside them, from the baseline's."""

    tensors: Count  # that both have in the same shape
    changed: tuple[TensorChange, ...]  # those that are not the same, bit for bit
    model_alone: tuple[str, ...] = ()  # tensors without a counterpart
    baseline_alone: tuple[str, ...] = ()
    other_shape: tuple[str, ...] = ()  # in both, and not compared
    files: tuple[FileChange, ...] | None = None  # null where one of both is no folder
    directions: tuple[UpdateDirection, ...] = ()  # of a language model, by falling score
    not_compared: tuple[str, ...] = ()  # other files beside the weights of one of both

    @property
    def identical(self) -> bool:
        """Whether every tensor and file was compared, and is the same, bit for bit."""
        same = self.files is not None and all(file.state == "same" for file in self.files)
        other = self.changed, self.model_alone, self.baseline_alone, self.other_shape
        return same and not any(other)


class AnswerChanges(Record, frozen=True):
    """The differences of the answers of a model and its baseline to the same rows."""

    rows: Count  # that both answered
    changed: Count  # with another class, or a number that moved by over 1% of its spread
    mended: Count | None = None  # wrong before and right now; null where that is not known
    broken: Count | None = None  # right before and wrong now; null likewise
    # the first ones, or the largest changes: row as a spreadsheet numbers it, before, after
    examples: tuple[tuple[Count, str, str], ...] = ()


class Difference(Reading, frozen=True):
    """The difference from the baseline: layers, tensors and answers."""

    baseline: BaselineSource
    layers: tuple[LayerDifference, ...]  # one entry for each layer that is read in one of both
    whole: WholeDifference | None = None  # of all tensors, whether they are read as layers or not
    trial: WordTrial | None = None  # null where no words were tried
    aligned: tuple[AlignmentNote, ...] = ()  # where not all are the same, in the same order
    # null where no rows were given that both models answer; of tables `column_changes` says it
    answers: AnswerChanges | None = None

    def check_fits(self, model: ModelFacts) -> None:
        """Refuse directions that are drawn in inputs of another width."""
        triggers = [one for layer in self.layers for one in layer.triggers if one.vector]
        fits = model.d_input is None or all(
            len(one.vector or ()) == model.d_input for one in triggers
        )
        require(fits, f"an eigenvector does not have {model.d_input} components")

    @property
    def around(self) -> str:
        """The way in which the parts around the layers differ; empty where they are the same."""
        return around_of(self.aligned)


class FitQuality(Record, frozen=True):
    """How much of a layer its quadratic approximation explains; claims on the map rest on it."""

    linear: float | None  # R² of the affine part; null for −∞, where a constant is missed
    quadratic: float | None  # R² of the whole map; null likewise
    standard_error: float  # of `quadratic`
    samples: Count  # inputs
    assumed_input: str
    threshold: float  # asked for
    usable: bool  # `quadratic` and `trimmed` reach it; claims on the map are refused otherwise
    fit: str = "standard normal"  # which one of the ladder of `QuadraticFit`
    seen: bool = False  # whether it is of what the layer receives, held out from the fit
    trimmed: float | None = (
        None  # R² without the 0.1 % of inputs with the largest outputs, and massive ones
    )
    median: float | None = None  # R² of the median input


class OutputModes(Record, frozen=True):
    """The singular values of a layer along its outputs, and the form along the leading one.

    An interval holds `low` and `high`, the range over all draws.
    """

    effective_rank: float  # of the singular values
    effective_rank_null: NullInterval
    directions_90: Count  # directions that hold 90% of ‖B‖²
    top_share: float  # σ₁² / ‖B‖²
    top_share_null: NullInterval
    leading_rank: float  # effective rank of the leading form
    leading_rank_null: NullInterval
    leading_complete: bool  # no larger eigenvalue can have been missed
    output_parts: tuple[Component, ...]  # of the leading output direction, the largest five
    pairs: tuple[LeadingPair, ...]  # leading eigenpairs of the form along it


class Units(Record, frozen=True):
    """Hidden units that do nothing, or the same as another one."""

    dead: Count  # add nothing, or have weights below 1e-6 of those of the median unit
    never_active: Count  # with an activation that is zero for every input
    duplicates: Count  # pairs that compute the same up to scale, and to rounding in bfloat16
    largest_overlap: float  # cosine of the rows of a pair, inputs in units of their weights
    overlap_null: float  # the largest one expected of random rows
    empty: Count = 0  # without any weight, as padding or pruning leaves them; not dead


class InputShares(Record, frozen=True):
    """Inputs that a layer does not read, and the one that it reads most."""

    unused: tuple[Count, ...]  # every weight on them is exactly zero
    # the strongest input; null where the map is not to be read, or nothing says that inputs share a
    # unit, and no rows say how much they vary
    dominant: Count | None
    share: float  # of ‖B‖², that the dominant one takes part in; with rows, of the variance
    share_null: float  # the largest share in randomly turned coordinates
    name: str = ""  # of the dominant input, where it has one
    rows: Count = 0  # in whose deviations inputs are compared; 0 for inputs that share a unit


class Stability(Record, frozen=True):
    """Bounds on how far rounding the stored weights moves the leading eigenvectors."""

    kind: str  # `bfloat16`
    movement: float  # no eigenvalue moves farther
    guaranteed: Count  # eigenvectors whose direction is guaranteed
    leading: Count  # of so many
    largest_angle: float | None  # degrees, of those that are guaranteed; null where none is


class LayerReading(Record, frozen=True):
    """The reading of one layer from its weights: sizes, spectra, neurons."""

    name: str  # as `bl.load(...).layers` has it
    kind: str  # `gated` or `plain`
    activation: str  # `identity` where the layer is exactly quadratic
    exact: bool  # the map is the layer
    d_input: Count
    d_hidden: Count
    d_output: Count
    class_centred: bool  # the outputs are logits, read against their mean
    broken: str | None = None  # why it cannot be read; then all that follows is null
    weight_norm: float | None = None  # √Σ of the squares of all weights
    norm_z: float | None = None  # robust z of its logarithm; null with fewer than five layers
    fit: FitQuality | None = None  # R²; null for an exact layer
    quadratic_norm: float | None = None  # ‖B‖ of the map; null where the map is refused
    linear_norm: float | None = None  # ‖b‖ of the map
    outputs: OutputModes | None = None  # the spectrum along the outputs
    units: Units | None = None  # dead and doubled units
    inputs: InputShares | None = None  # unused and strongest inputs
    stability: Stability | None = None  # under rounding


class LayerReadings(ModelReading, frozen=True):
    """The layers of a model, read one after another."""

    readings: tuple[LayerReading, ...]  # one entry for each layer, first to last
