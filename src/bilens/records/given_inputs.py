"""Readings of given inputs beside the weights: training against others, examples, spectra."""

from bilens.records.base import Count, Numbers, Record, require
from bilens.records.common import DataOrigin, ModelFacts, Reading, Share


class WhitenedClass(Record, frozen=True):
    """One class against the mean of all, in the basis where the inputs vary equally."""

    deviation: float  # of its score for a normal input with their mean and covariance, in logits
    linear: float  # share of its square, the variance, that is linear around their mean
    effective_rank: float  # (Σ|λ|)² / Σλ² of Σ^½ Q Σ^½
    num_90: Count  # eigenvalues that hold 90% of Σλ²
    eigenvalues: Numbers  # the largest by |λ|, in logits per squared standard deviation


class Sample(Record, frozen=True):
    """Inputs of one kind, and what the model makes of them."""

    rows: Count
    data: DataOrigin  # where they come from
    accuracy: Share | None  # null without labels
    confidence: float  # mean probability of the answer
    lead: float  # median lead of the answer over the second class, in logits
    radius: float | None  # median exact ℓ2 radius of an answer; null where none has a finite one
    num_radii: Count  # inputs, drawn at random, that it is of; 0 with more than 20 classes
    classes: tuple[WhitenedClass, ...]  # empty where the inputs do not vary


class Area(Record, frozen=True):
    """How often a training input has the larger number: 1/2 where both are alike."""

    value: float  # share of pairs of a training input and another one, ties counted half
    low: float  # of an interval of about 95% (Wilson, with the variance of DeLong)
    high: float
    p: float  # of the Mann–Whitney test that training inputs have no larger numbers


class Gap(Record, frozen=True):
    """Accuracy on the training inputs minus that on the others."""

    value: float
    low: float  # measured: of an interval of at least 95%; estimated: of a range
    high: float


class Bound(Record, frozen=True):
    """A bound on the error on new inputs, if the training inputs were drawn independently."""

    error: float  # with 95% confidence at most this share is answered wrong; from 1 it says nothing
    # about how many inputs with such margins prove less than 50%; null where none do
    needed: float | None


class Comparison(Record, frozen=True):
    """The training inputs against others of the same kind."""

    lead: Area
    radius: Area | None  # of exact ℓ2 radii, of the inputs drawn; null where there are too few
    gap: Gap | None  # measured; null where labels are missing
    estimate: Gap  # as distances to other answers put it, without labels: a range, and no bound


class Support(Record, frozen=True):
    """An eigenvector of the label's form minus that of the second class: the lead rests on it."""

    eigenvalue: float  # λ
    value: float  # λ(v·x)², in logits
    use: float  # (v·x)² over its mean over all training inputs
    vector: Numbers  # v


class TrainingExample(Record, frozen=True):
    """One training input that the model answers as it was told to."""

    index: Count  # in the training inputs, from 0
    label: Count  # its label, or the answer where labels are not known
    lead: float  # of the label over the second class, in logits
    radius: float | None  # exact ℓ2 distance to another class; null where none, or not computed
    others: float  # margin of its label by a ridge regression on all other training inputs
    nearest: Count  # the class that these speak for most, its label apart
    second: Count  # the class with the second score
    image: Numbers  # the input, row by row
    supports: tuple[Support, ...]  # the largest contributions to the lead


class GivenInputs(Reading, frozen=True):
    """Readings of the inputs that were given, training and test, beside those of the weights."""

    training: Sample | None
    test: Sample | None
    bound: Bound | None  # null without labels of the training inputs
    comparison: Comparison | None
    # why there is no comparison: `training_alone`, `test_alone`, `same`, `few`; else empty
    reason: str
    repeated: Count  # test inputs that are among the training inputs
    examples: tuple[TrainingExample, ...]  # by rising `others`: most like learnt by heart, first

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
