"""Readings of given inputs beside the weights: training against others, examples, spectra."""

from typing import Annotated

from bilens.records.base import Count, Numbers, Record, require
from bilens.records.common import DataOrigin, ModelFacts, Reading, Share
from bilens.records.view import View


class WhitenedClass(Record, frozen=True):
    """One class against the mean of all, in the basis where the inputs vary equally."""

    deviation: Annotated[float, "of its score for a normal input of their covariance, in logits"]
    linear: Annotated[float, "share of its square, the variance, that is linear around their mean"]
    effective_rank: Annotated[float, "(Σ|λ|)² / Σλ² of Σ^½ Q Σ^½"]
    num_90: Annotated[Count, "eigenvalues that hold 90% of Σλ²"]
    eigenvalues: Annotated[Numbers, "the largest by |λ|, in logits per squared standard deviation"]


class Sample(Record, frozen=True):
    """Inputs of one kind, and what the model makes of them."""

    rows: Annotated[Count, "inputs that were given"]
    data: Annotated[DataOrigin, "where they come from"]
    accuracy: Annotated[Share | None, "null without labels"]
    confidence: Annotated[float, "mean probability of the answer"]
    lead: Annotated[float, "median lead of the answer over the second class, in logits"]
    radius: Annotated[float | None, "median exact ℓ2 radius of an answer; null if none is finite"]
    num_radii: Annotated[Count, "inputs drawn at random that it is of; 0 beyond 20 classes"]
    classes: Annotated[tuple[WhitenedClass, ...], "empty where the inputs do not vary"]


class Area(Record, frozen=True):
    """How often a training input has the larger number: 1/2 where both are alike."""

    value: Annotated[float, "share of pairs of a training input and another one, ties counted half"]
    low: Annotated[float, "of an interval of about 95% (Wilson, with the variance of DeLong)"]
    high: Annotated[float, "upper end of that interval"]
    p: Annotated[float, "of the Mann–Whitney test that training inputs have no larger numbers"]


class Gap(Record, frozen=True):
    """Accuracy on the training inputs minus that on the others."""

    value: Annotated[float, "the difference"]
    low: Annotated[float, "measured: of an interval of at least 95%; estimated: of a range"]
    high: Annotated[float, "upper end of the same"]


class Bound(Record, frozen=True):
    """A bound on the error on new inputs, if the training inputs were drawn independently."""

    error: Annotated[float, "at most this share is answered wrong (95%); from 1 it says nothing"]
    needed: Annotated[float | None, "about how many inputs with such margins prove < 50%, if any"]


class Comparison(Record, frozen=True):
    """The training inputs against others of the same kind."""

    lead: Annotated[Area, "of the lead over the second class"]
    radius: Annotated[Area | None, "of exact ℓ2 radii, of the inputs drawn; null for too few"]
    gap: Annotated[Gap | None, "measured; null where labels are missing"]
    estimate: Annotated[Gap, "by distances to other answers, without labels: a range, no bound"]


class Support(Record, frozen=True):
    """An eigenvector of the label's form minus that of the second class: the lead rests on it."""

    eigenvalue: Annotated[float, "λ"]
    value: Annotated[float, "λ(v·x)², in logits"]
    use: Annotated[float, "(v·x)² over its mean over all training inputs"]
    vector: Annotated[Numbers, "v"]


class TrainingExample(Record, frozen=True):
    """One training input that the model answers as it was told to."""

    index: Annotated[Count, "in the training inputs, from 0"]
    label: Annotated[Count, "its label, or the answer where labels are not known"]
    lead: Annotated[float, "of the label over the second class, in logits"]
    radius: Annotated[float | None, "exact ℓ2 distance to another class, where computed"]
    others: Annotated[float, "margin of its label by ridge regression on all other training inputs"]
    nearest: Annotated[Count, "the class that these speak for most, its label apart"]
    second: Annotated[Count, "the class with the second score"]
    image: Annotated[Numbers, "the input, row by row"]
    supports: Annotated[tuple[Support, ...], "the largest contributions to the lead"]


class GivenInputs(Reading, frozen=True):
    """Readings of the inputs that were given, training and test, beside those of the weights."""

    training: Annotated[Sample | None, "null without training inputs"]
    test: Annotated[Sample | None, "null without other inputs"]
    bound: Annotated[Bound | None, "null without labels of the training inputs"]
    comparison: Annotated[Comparison | None, "null where `reason` says why"]
    reason: Annotated[str, "why none: `training_alone`, `test_alone`, `same`, `few`; else empty"]
    repeated: Annotated[Count, "test inputs that are among the training inputs"]
    examples: Annotated[
        tuple[TrainingExample, ...], View("by rising `others`: most learnt first", instead=())
    ]

    def __post_init__(self) -> None:
        require((self.comparison is None) == (self.reason != ""), "inputs: a reason is amiss")
        require(self.training is not None or not self.examples, "examples of no training inputs")

    def check_fits(self, model: ModelFacts) -> None:
        """Refuse examples of other classes, or of another width."""
        width, classes = model.d_input, len(model.output_names)
        for one in self.examples:
            drawn = [one.image, *(support.vector for support in one.supports)]
            fits = max(one.label, one.nearest, one.second) < classes
            fits = fits and all(len(vector) == width for vector in drawn)
            require(fits, "an example of inputs does not fit the model")
