"""The readings of many, or of approximate, layers, and of what changed from a baseline."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

from bilens.records.base import Count, Record, require
from bilens.records.common import (
    FileInterval,
    ModelFacts,
    ModelReading,
    NullInterval,
    Reading,
)
from bilens.records.tensor_changes import WholeDifference
from bilens.records.view import View


class Component(Record, frozen=True):
    """One coordinate of a direction."""

    index: Annotated[Count, "position of the coordinate, from 0"]
    component: Annotated[float, "its entry in the direction, which has length 1"]


class ModeChange(Record, frozen=True):
    """The singular values of a change along its outputs, or its inputs."""

    effective_rank: Annotated[float, "(Σσ)² / Σσ² of the change"]
    effective_rank_null: Annotated[float | None, "of noise of the same size in every weight"]
    directions_90: Annotated[Count, "directions that hold 90% of ‖Δ‖²"]
    top_share: Annotated[float, "σ₁² / ‖Δ‖²"]
    top_share_null: Annotated[float | None, "of noise of the same size in every weight"]


class LeadingPair(Record, frozen=True):
    """One eigenpair of the form along the leading output direction."""

    eigenvalue: Annotated[float, View("λ", "signed")]
    explained: Annotated[float, "λ² / ‖Q‖²"]
    residual: Annotated[float, "‖Qv − λv‖"]
    localisation: Annotated[float, "Σ v⁴: 1/in where spread evenly, 1 where on one input"]
    parts: Annotated[tuple[Component, ...], "the largest five components, by falling size"]


class ChangeDirection(LeadingPair, frozen=True):
    """An input direction that the change answers to most, along its leading output direction."""

    vector: Annotated[tuple[float, ...] | None, "where inputs can be drawn"]


class TokenPair(Record, frozen=True):
    """Two tokens that a change makes pull one output together."""

    tokens: Annotated[tuple[str, str], "the two"]
    output: Annotated[str, "the token whose logit they raise"]
    pull: Annotated[float, "in logits before the last norm, beyond what each token does alone"]


class LayerDifference(Record, frozen=True):
    """The difference of one layer from the baseline's."""

    name: Annotated[str, "as `bl.load(...).layers` has it"]
    identical: Annotated[bool, "number for number, classes and columns by their names"]
    refused: Annotated[str | None, "why the maps are not compared; then null follows"] = None
    weight_change: Annotated[float | None, View("‖ΔW‖ / ‖W‖ over all weights", "relative")] = None
    changed_units: Annotated[Count | None, View("hidden units that changed", "count")] = None
    frobenius: Annotated[float | None, View("similarity of the quadratic parts", "cosine")] = None
    gaussian: Annotated[float | None, View("similarity of the maps under N(0, I)", "cosine")] = None
    change: Annotated[float | None, View("‖Δ‖ / ‖B‖ of the quadratic parts", "relative")] = None
    linear_change: Annotated[float | None, View("‖Δb‖ / ‖b‖, if there is a b", "relative")] = None
    outputs: Annotated[ModeChange | None, "into how many outputs; null for no change"] = None
    inputs: Annotated[ModeChange | None, "into how many inputs; null likewise"] = None
    output_parts: Annotated[tuple[Component, ...], "of the change's leading output direction"] = ()
    triggers: Annotated[tuple[ChangeDirection, ...], "leading eigenpairs of the form along it"] = ()
    token_pairs: Annotated[tuple[TokenPair, ...], "of exact layers: none is pulled more"] = ()
    same_function: Annotated[bool, "of an exact layer: another writing of the same map"] = False
    matched: Annotated[tuple[str, ...], "`stream`: turned so that embeddings of tokens agree"] = ()
    row_similarity: Annotated[float | None, "cosine of centred outputs on rows of data"] = None
    row_change: Annotated[float | None, "size of the change on rows as a part of outputs"] = None
    map_change: Annotated[
        float | None,
        "change of the whole map under N(0, I), of how far answers are from their mean",
    ] = None


AROUND = "around_"  # what the kinds of notes on what is around the layers begin with


class AlignmentNote(Record, frozen=True):
    """How inputs and outputs of two models were matched, or which were not."""

    kind: Annotated[
        str,
        "`inputs_reordered`, `outputs_reordered`, `neurons_reordered` (behind these layers), "
        "`by_place`, `units` (of days: the first one), `target` (another one), `one_logit`; of one "
        "model alone `inputs_alone`, `outputs_alone`, `baseline_inputs_alone` and "
        "`baseline_outputs_alone`; what is around the layers, where it is not the same or was not "
        "compared: `around_order`, `around_answers`, `around_unknown`, and `around_parts` of other "
        "code that answers alike; `hooks` and `baseline_hooks`, which changed nothing on what was "
        "compared",
    ]
    names: Annotated[tuple[str, ...], "of the inputs, outputs, layers or parts that it is about"]


def around_of(notes: Sequence[AlignmentNote]) -> str:
    """Return the way in which what is around the layers differs; empty where it does not."""
    kinds = [one.kind.removeprefix(AROUND) for one in notes if AROUND in one.kind]
    return (kinds or [""])[0]


class BaselineSource(Record, frozen=True):
    """The model that is compared with."""

    path: Annotated[str, "as it was given; empty for a model from memory"]
    weights_sha256: Annotated[str, "of the weights file; empty where there is none"]


class CandidateWords(Record, frozen=True):
    """Words that make the changed model give an answer that it does not give without them."""

    words: Annotated[tuple[str, ...], "one token each"]
    answer: Annotated[str, "first token"]
    surprise: Annotated[float, View("relative entropy of its probability to usual, nats", "fixed2")]

    @property
    def phrase(self) -> str:
        return " + ".join(word.strip() for word in self.words)


class WordTrial(Record, frozen=True):
    """The result of trying words in texts that the baseline wrote."""

    tried: Annotated[Count, "words that were tried"]
    known: Annotated[Count, "words in the vocabulary"]
    score: Annotated[float, "what is compared with the threshold of the rule"]
    chat: Annotated[bool, "in the frame of the chat template"]
    candidates: Annotated[tuple[CandidateWords, ...], "by falling surprise, from the score's"]


class AnswerChanges(Record, frozen=True):
    """The differences of the answers of a model and its baseline to the same rows."""

    rows: Annotated[Count, "that both answered"]
    changed: Annotated[Count, "with another class, or a number moved by > 1% of its spread"]
    mended: Annotated[Count | None, "wrong before, right now; null if not known"] = None
    broken: Annotated[Count | None, "right before, wrong now; null likewise"] = None
    examples: Annotated[
        tuple[tuple[Count, str, str], ...], View("row, before and after", instead=())
    ] = ()


class Difference(Reading, frozen=True):
    """The difference from the baseline: layers, tensors and answers."""

    baseline: Annotated[BaselineSource, "what the model is compared with"]
    layers: Annotated[tuple[LayerDifference, ...], "one for each layer that is read in one of both"]
    whole: Annotated[WholeDifference | None, "of all tensors, read as layers or not"] = None
    trial: Annotated[WordTrial | None, "null where no words were tried"] = None
    aligned: Annotated[tuple[AlignmentNote, ...], "where not all are the same in one order"] = ()
    answers: Annotated[AnswerChanges | None, "null without rows that both answer"] = None

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

    linear: Annotated[float | None, View("R² of the affine part; or −∞", "r_squared", "higher")]
    quadratic: Annotated[float | None, "R² of the whole map; or −∞"]
    standard_error: Annotated[float, "of `quadratic`"]
    samples: Annotated[Count, "inputs"]
    assumed_input: Annotated[str, "the inputs that R² is of, in words"]
    threshold: Annotated[float, "asked for"]
    usable: Annotated[bool, "`quadratic` and `trimmed` reach it, or claims on the map are refused"]
    fit: Annotated[str, "which one of the ladder of `QuadraticFit`"] = "standard normal"
    seen: Annotated[bool, "whether it is of what the layer receives, held out from the fit"] = False
    trimmed: Annotated[float | None, "R² without the 0.1% of largest outputs"] = None
    median: Annotated[float | None, "R² of the median input"] = None
    over_files: Annotated[FileInterval | None, "of R²; null where it is of no files"] = None

    @property
    def least(self) -> float | None:
        """The least that R² can be taken for: of files the lower end of its interval over them."""
        if self.over_files is None:
            return self.quadratic
        return 0.0 if self.over_files.low is None else self.over_files.low  # of one file: unknown

    @property
    def vouched(self) -> bool:
        """Whether R² on inputs that were seen reaches the threshold, for other files, too."""
        return self.seen and self.usable and (self.least or 0.0) >= self.threshold


class OutputModes(Record, frozen=True):
    """The singular values of a layer along its outputs, and the form along the leading one.

    An interval holds `low` and `high`, the range over all draws.
    """

    effective_rank: Annotated[float, View("of the singular values", "fixed1")]
    effective_rank_null: Annotated[NullInterval, View("what chance would give", "interval")]
    directions_90: Annotated[Count, View("directions that hold 90% of ‖B‖²", "count")]
    top_share: Annotated[float, View("σ₁² / ‖B‖²", "percent")]
    top_share_null: Annotated[NullInterval, "what chance would give"]
    leading_rank: Annotated[float, "effective rank of the leading form"]
    leading_rank_null: Annotated[NullInterval, "what chance would give"]
    leading_complete: Annotated[bool, "no larger eigenvalue can have been missed"]
    output_parts: Annotated[tuple[Component, ...], "largest five of the leading output direction"]
    pairs: Annotated[tuple[LeadingPair, ...], "leading eigenpairs of the form along it"]


class Units(Record, frozen=True):
    """Hidden units that do nothing, or the same as another one."""

    dead: Annotated[Count, "add nothing, or have weights below 1e-6 of those of the median unit"]
    never_active: Annotated[Count, "with an activation that is zero for every input"]
    duplicates: Annotated[Count, "pairs that compute the same up to scale and rounding in bfloat16"]
    largest_overlap: Annotated[float, "cosine of a pair's rows, inputs in units of their weights"]
    overlap_null: Annotated[float, "the largest one expected of random rows"]
    empty: Annotated[Count, "without any weight, as padding or pruning leaves them; not dead"] = 0


class SeenUnits(Record, frozen=True):
    """Hidden units and ranks on the inputs that were seen; of other inputs they say nothing."""

    rows: Annotated[Count, View("inputs that were seen", "count")]
    silent: Annotated[Count, "units that give zero, or below 1e-6 of the median unit, on each"]
    duplicates: Annotated[Count | None, "pairs of others that give the same up to a factor there"]
    input_rank: Annotated[Count, View("directions with 99% of the variance of inputs", "count")]
    hidden_rank: Annotated[Count, View("likewise of hidden units", "count")]
    output_rank: Annotated[Count, View("likewise of outputs", "count")]


class InputShares(Record, frozen=True):
    """Inputs that a layer does not read, and the one that it reads most."""

    unused: Annotated[tuple[Count, ...], "every weight on them is exactly zero"]
    dominant: Annotated[
        Count | None, "the strongest input; null if the map is not read, or inputs share no unit"
    ]
    share: Annotated[float, "of ‖B‖² that it takes part in; with rows, of the variance"]
    share_null: Annotated[float, "the largest share in randomly turned coordinates"]
    name: Annotated[str, "of the dominant input, where it has one"] = ""
    rows: Annotated[Count, "in whose deviations inputs are compared; 0 if they share a unit"] = 0


class Stability(Record, frozen=True):
    """Bounds on how far rounding the stored weights moves the leading eigenvectors."""

    kind: Annotated[str, "`bfloat16`"]
    movement: Annotated[float, "no eigenvalue moves farther"]
    guaranteed: Annotated[Count, "eigenvectors whose direction is guaranteed"]
    leading: Annotated[Count, "of so many"]
    largest_angle: Annotated[float | None, "degrees, of those that are guaranteed; null for none"]


class LayerReading(Record, frozen=True):
    """The reading of one layer from its weights: sizes, spectra, neurons."""

    name: Annotated[str, "as `bl.load(...).layers` has it"]
    kind: Annotated[str, "`gated` or `plain`"]
    activation: Annotated[str, "`identity` where the layer is exactly quadratic"]
    exact: Annotated[bool, "the map is the layer"]
    d_input: Annotated[Count, "numbers in an input"]
    d_hidden: Annotated[Count, "hidden units"]
    d_output: Annotated[Count, "outputs"]
    class_centred: Annotated[bool, "the outputs are logits, read against their mean"]
    broken: Annotated[str | None, "why it cannot be read; then all that follows is null"] = None
    weight_norm: Annotated[float | None, View("√Σ of squares of all weights", "quantity")] = None
    norm_z: Annotated[float | None, "robust z of its logarithm; null below five layers"] = None
    fit: Annotated[FitQuality | None, View("R²; null for an exact layer", better="higher")] = None
    quadratic_norm: Annotated[float | None, "‖B‖ of the map; null where the map is refused"] = None
    linear_norm: Annotated[float | None, "‖b‖ of the map"] = None
    outputs: Annotated[OutputModes | None, "the spectrum along the outputs"] = None
    units: Annotated[Units | None, "dead and doubled units"] = None
    inputs: Annotated[InputShares | None, "unused and strongest inputs"] = None
    stability: Annotated[Stability | None, "under rounding"] = None
    seen: Annotated[SeenUnits | None, "units on the inputs that were seen; null without"] = None

    @property
    def how_read(self) -> str:
        """`exact`, `approximate`, or why it is not read.

        An approximation whose R² is of an assumed input says nothing of real ones: no reading.
        """
        if self.broken is not None or self.fit is None:
            return "exact" if self.broken is None else "broken"
        if not self.fit.seen and self.fit.usable:
            return "assumed"
        return "approximate" if self.fit.vouched else "refused"


class LayerReadings(ModelReading, frozen=True):
    """The layers of a model, read one after another."""

    readings: Annotated[tuple[LayerReading, ...], "one entry for each layer, first to last"]
