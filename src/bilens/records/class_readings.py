"""The readings of a classifier of one bilinear layer: class by class, exactly.

"Logits" are the unit of the outputs, "inputs" that of x; eigenvalues are in logits per squared
input unit. Spectra are class-centred and in the input basis, unless a field says otherwise.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

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


class Eigenvector(Record, frozen=True):
    """One eigenpair of a class reading, in the input basis."""

    eigenvalue: float  # λ
    explained: float  # λ² / ‖Q‖²
    residual: float  # ‖Qv − λv‖
    subspace_size: Count  # 1, or how many eigenvalues cannot be told apart: a common space then
    # v, length 1, largest component positive, row by row; rounded to five decimals, for drawing
    vector: tuple[float, ...]


class ClassReading(Record, frozen=True):
    """The spectrum and leading eigenvectors of one class, against the mean of all classes."""

    index: Count  # position among the outputs
    name: str
    eigenvalues: tuple[float, ...]  # the whole spectrum, by falling value
    positive: tuple[Eigenvector, ...]  # leading positive eigenpairs, largest first; at most four
    negative: tuple[Eigenvector, ...]  # leading negative eigenpairs, smallest first; at most four
    upper_edge: float  # one-sided 95% edge of the largest eigenvalue under the rotation null
    lower_edge: float  # one-sided 95% edge of the smallest eigenvalue under the rotation null
    p_upper: float  # (1 + rotations with as large an eigenvalue) / (`null_samples` + 1)
    p_lower: float  # the same of the smallest eigenvalue
    significant_positive: Count  # eigenvalues above `upper_edge`
    significant_negative: Count  # eigenvalues below `lower_edge`
    effective_rank: float  # (Σ|λ|)² / Σλ²
    effective_rank_null: NullInterval  # the same under the rotation null
    effective_rank_raw: float  # of the class's own form, not centred
    effective_rank_embedding: float  # own form in the embedding basis: the paper's convention
    frobenius_norm: float  # ‖Q‖
    linear_norm: float  # ‖b‖, from biases and residual path
    constant: float  # c
    largest_residual: float  # largest ‖Qv − λv‖ over the whole spectrum
    complete: bool  # all pairs passed the check of residual and orthogonality

    def __post_init__(self) -> None:
        require(len(self.eigenvalues) > 0, "there are no eigenvalues")


class TruncationPoint(Record, frozen=True):
    """Accuracy when each class keeps its k leading eigenvectors."""

    k: Count  # eigenvectors kept, by falling |λ|; linear and constant terms stay
    accuracy: float
    agreement: float  # share of answers equal to the whole model's


class Contribution(Record, frozen=True):
    """The share of one eigenvector in the score of one class for one input."""

    rank: Count  # position by falling |λ|, from 1
    eigenvalue: float  # λ
    overlap: float  # v·x
    value: float  # λ(v·x)², in logits
    vector: tuple[float, ...]  # v


class ClassScore(Record, frozen=True):
    """The terms of one class-centred logit of one input, which sum to it."""

    index: Count  # the class
    score: float  # `linear` + `constant` + `rest` + the values of `contributions`
    linear: float  # b·x
    constant: float  # c
    contributions: tuple[Contribution, ...]  # the eigenvectors that count most for this input
    rest: float  # all other eigenvectors together


class Explanation(Record, frozen=True):
    """One prediction, taken apart exactly."""

    # why it was chosen: `typical` (median lead of the right answers), `narrow` (smallest lead),
    # `wrong` (wrong with the highest probability), `asked`
    kind: str
    index: Count  # in the test data, from 0; of a table the row as a spreadsheet numbers it
    label: Count | None  # the right class, where it is known
    predicted: Count  # the class with the highest score
    image: tuple[float, ...]  # the input, row by row
    scores: tuple[float, ...]  # class-centred logits of all classes
    classes: tuple[ClassScore, ...]  # the two highest, and the label where it is another one


class ClassReadings(ModelReading, frozen=True):
    """The classes of a classifier of one exact layer: spectra, few directions, predictions."""

    readings: tuple[ClassReading, ...]  # in the order of the outputs
    truncation: tuple[TruncationPoint, ...]  # accuracy with fewer eigenvectors, by rising k
    explanations: tuple[Explanation, ...]  # predictions taken apart; empty without data

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

    attributions: tuple[InputAttribution, ...]  # of the predicted class, and of its lead
    target: float | None = None  # the right answer of a regression, where it is known


class Explanations(Document, frozen=True, kw_only=True):
    """The scores of some inputs taken apart, by eigenvectors and by inputs."""

    kind: Literal["explanation"] = "explanation"
    model: ModelSummary  # what was read
    # what an input is set to where it is absent: `zeros`, `mean`, `mean of the … rows given`
    baseline: str
    explanations: tuple[InputExplanation, ...]
    source: Source  # where the weights come from
    data: DataOrigin  # where the inputs come from
    reproduce: Run  # what it takes to run the same again

    def __post_init__(self) -> None:
        for item in self.explanations:
            check_explanation(item, self.model.d_output, self.model.d_input)
