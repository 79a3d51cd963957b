"""The readings of a classifier of one bilinear layer: class by class, exactly.

"Logits" are the unit of the outputs, "inputs" that of x; eigenvalues are in logits per squared
input unit. Spectra are class-centred and in the input basis, unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Annotated, Literal

from bilens.records.base import Count, Document, Record, require
from bilens.records.column_readings import InputAttribution
from bilens.records.common import (
    DataOrigin,
    ModelFacts,
    ModelReading,
    ModelSummary,
    NullInterval,
    Run,
    Source,
    check_input_shape,
)
from bilens.records.view import View


class Eigenvector(Record, frozen=True):
    """One eigenpair of a class reading, in the input basis."""

    eigenvalue: Annotated[float, "λ"]
    explained: Annotated[float, "λ² / ‖Q‖²"]
    residual: Annotated[float, "‖Qv − λv‖"]
    subspace_size: Annotated[Count, "1, or how many eigenvalues cannot be told apart"]
    vector: Annotated[tuple[float, ...], "v, length 1, largest component positive; rounded"]


class ClassReading(Record, frozen=True):
    """The spectrum and leading eigenvectors of one class, against the mean of all classes."""

    index: Annotated[Count, "position among the outputs"]
    name: Annotated[str, "of the class"]
    eigenvalues: Annotated[tuple[float, ...], "the whole spectrum, by falling value"]
    positive: Annotated[tuple[Eigenvector, ...], "leading positive ones, largest first; up to four"]
    negative: Annotated[tuple[Eigenvector, ...], "negative ones, smallest first; up to four"]
    upper_edge: Annotated[float, "one-sided 95% edge of the largest eigenvalue under rotations"]
    lower_edge: Annotated[float, "one-sided 95% edge of the smallest eigenvalue under rotations"]
    p_upper: Annotated[float, "(1 + rotations with as large an eigenvalue) / (`null_samples` + 1)"]
    p_lower: Annotated[float, "the same of the smallest eigenvalue"]
    significant_positive: Annotated[Count, "eigenvalues above `upper_edge`"]
    significant_negative: Annotated[Count, "eigenvalues below `lower_edge`"]
    effective_rank: Annotated[float, View("(Σ|λ|)² / Σλ²", "fixed1")]
    effective_rank_null: Annotated[NullInterval, View("the same under the rotation null", "usual")]
    effective_rank_raw: Annotated[float, View("of the class's own form, not centred", "fixed1")]
    effective_rank_embedding: Annotated[float, View("own form, in the embedding basis", "fixed1")]
    frobenius_norm: Annotated[float, "‖Q‖"]
    linear_norm: Annotated[float, "‖b‖, from biases and residual path"]
    constant: Annotated[float, "c"]
    largest_residual: Annotated[float, "largest ‖Qv − λv‖ over the whole spectrum"]
    complete: Annotated[bool, "all pairs passed the check of residual and orthogonality"]

    def __post_init__(self) -> None:
        require(len(self.eigenvalues) > 0, "there are no eigenvalues")


class TruncationPoint(Record, frozen=True):
    """Accuracy when each class keeps its k leading eigenvectors."""

    k: Annotated[Count, "eigenvectors kept, by falling |λ|; linear and constant terms stay"]
    accuracy: Annotated[float, "share of right answers"]
    agreement: Annotated[float, "share of answers equal to the whole model's"]


class Contribution(Record, frozen=True):
    """The share of one eigenvector in the score of one class for one input."""

    rank: Annotated[Count, "position by falling |λ|, from 1"]
    eigenvalue: Annotated[float, "λ"]
    overlap: Annotated[float, "v·x"]
    value: Annotated[float, "λ(v·x)², in logits"]
    vector: Annotated[tuple[float, ...], "v"]


class ClassScore(Record, frozen=True):
    """The terms of one class-centred logit of one input, which sum to it."""

    index: Annotated[Count, "the class"]
    score: Annotated[float, "`linear` + `constant` + `rest` + the values of `contributions`"]
    linear: Annotated[float, "b·x"]
    constant: Annotated[float, "c"]
    contributions: Annotated[tuple[Contribution, ...], "eigenvectors that count most for the input"]
    rest: Annotated[float, "all other eigenvectors together"]


class Explanation(Record, frozen=True):
    """One prediction, taken apart exactly."""

    kind: Annotated[
        str, "why it was chosen: `typical` (median lead), `narrow` (least lead), `wrong`, `asked`"
    ]
    index: Annotated[Count, "in the test data, from 0; of a table as a spreadsheet numbers rows"]
    label: Annotated[Count | None, "the right class, where it is known"]
    predicted: Annotated[Count, "the class with the highest score"]
    image: Annotated[tuple[float, ...], "the input, row by row"]
    scores: Annotated[tuple[float, ...], "class-centred logits of all classes"]
    classes: Annotated[tuple[ClassScore, ...], "the two highest, and the label if it is another"]


class ClassReadings(ModelReading, frozen=True):
    """The classes of a classifier of one exact layer: spectra, few directions, predictions."""

    readings: Annotated[tuple[ClassReading, ...], "in the order of the outputs"]
    truncation: Annotated[tuple[TruncationPoint, ...], "accuracy with k eigenvectors, by k"]
    explanations: Annotated[
        tuple[Explanation, ...], View("predictions taken apart; empty without data", instead=())
    ]

    def check_fits(self, model: ModelFacts) -> None:
        """Refuse readings of other classes, or of inputs of another width."""
        one_layer = model.one_layer
        check_input_shape(one_layer)
        width, classes = one_layer.d_input, len(self.readings)
        require(classes == len(model.output_names) > 1, "classes and output_names differ")
        for position, reading in enumerate(self.readings):
            require(reading.index == position, f"classes[{position}] has another index")
            require_width((*reading.positive, *reading.negative), width)
        for explanation in self.explanations:
            check_explanation(explanation, classes, width)


def check_explanation(explanation: Explanation, classes: int, width: int) -> None:
    """Refuse an explanation that does not fit the model."""
    named = [explanation.predicted, *(score.index for score in explanation.classes)]
    named += [] if explanation.label is None else [explanation.label]
    require(max(named) < classes, "an explanation names a class that is not there")
    require(len(explanation.scores) == classes, "an explanation lacks scores")
    require(len(explanation.image) == width, f"an image does not have {width} values")
    for score in explanation.classes:
        require_width(score.contributions, width)


def require_width(pairs: Iterable[Eigenvector | Contribution], width: int) -> None:
    """Refuse eigenvectors of another length than the inputs."""
    fits = all(len(pair.vector) == width for pair in pairs)
    require(fits, f"an eigenvector does not have {width} components")


class InputExplanation(Explanation, frozen=True):
    """One prediction, taken apart exactly both ways."""

    attributions: Annotated[tuple[InputAttribution, ...], "of the predicted class, and of its lead"]
    target: Annotated[float | None, "the right answer of a regression, where it is known"] = None


class Explanations(Document, frozen=True, kw_only=True):
    """The scores of some inputs taken apart, by eigenvectors and by inputs."""

    kind: Annotated[Literal["explanation"], "of the document"] = "explanation"
    model: Annotated[ModelSummary, "what was read"]
    baseline: Annotated[str, "what absent inputs are: `zeros`, `mean`, `mean of the … rows given`"]
    explanations: Annotated[
        tuple[InputExplanation, ...], View("one for each input that was asked for", instead=())
    ]
    source: Annotated[Source, "where the weights come from"]
    data: Annotated[DataOrigin, "where the inputs come from"]
    reproduce: Annotated[Run, "what it takes to run the same again"]

    def __post_init__(self) -> None:
        for item in self.explanations:
            check_explanation(item, self.model.d_output, self.model.d_input)
