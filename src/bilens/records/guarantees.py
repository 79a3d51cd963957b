"""Proven guarantees of a classifier, alone as a certificate or as a part of an audit.

None stands where a number would be infinite or where there is nothing to say.
"""

from __future__ import annotations

from typing import Literal

from bilens.records.base import Count, Document, Integer, Record, require
from bilens.records.common import (
    DataOrigin,
    Exactness,
    ModelFacts,
    ModelSummary,
    Reading,
    Run,
    Source,
    check_input_shape,
)


class Box(Record, frozen=True):
    """The interval in which every input entry lies."""

    low: float
    high: float
    # `pixels`: of the images that the model was trained on; `data`: [0, 1], wider where the data
    # are; empty in an older document
    origin: str = ""


class InputRadius(Record, frozen=True):
    """One input: no change shorter than `radius` flips it, one of length `distance` does."""

    index: Count  # in the test set
    label: Count
    status: str  # name of a `RadiusStatus`, in small letters
    radius: float | None  # null: no input whatever is given to another class
    distance: float | None  # null: no example was found
    rival: Count | None  # the class that is nearest
    margin: float  # logit of the label minus the largest other one


class CurvePoint(Record, frozen=True):
    """Certified accuracy: the share of inputs that no change up to a length can flip."""

    radius: float
    share: float


class EuclideanRadii(Record, frozen=True):
    """Radii in the Euclidean norm."""

    num_inputs: Count
    num_right: Count  # of them, the label has the largest logit at the input itself
    median: float | None  # over all inputs, those misclassified with 0; null where it is infinite
    curve: tuple[CurvePoint, ...]
    statuses: dict[str, Count]  # how many inputs have each status
    num_open: Count  # inputs with 0 < radius and a gap above 1e-6 between radius and distance
    largest_gap: float  # (distance − radius) / distance
    num_examples: Count  # inputs with an example that lies elsewhere
    num_examples_in_box: Count  # of them, still given to another class once clamped to the box
    inputs: tuple[InputRadius, ...]

    def __post_init__(self) -> None:
        require(len(self.curve) > 1, "the curve has fewer than two points")
        require(0 < self.num_inputs == len(self.inputs), "l2 has another number of inputs")


class InputInterval(Record, frozen=True):
    """One input, every entry moved by as much at most: lower ≤ true distance ≤ upper."""

    index: Count
    status: str
    lower: float | None
    upper: float | None


class LargestEntryRadii(Record, frozen=True):
    """Bounds in the ℓ∞ norm, where the exact distance is NP-hard to compute."""

    num_inputs: Count
    median_lower: float | None
    median_upper: float | None
    restarts: Count  # of the attack that bounds from above
    steps: Count
    inputs: tuple[InputInterval, ...]


class TruncationGuarantee(Record, frozen=True):
    """A bound on the change of the logits where k eigenpairs of each class form are kept."""

    k: Count
    bounds: tuple[float, ...]  # of each class, in logits, over the ball
    attained: tuple[bool, ...]  # an input of the ball is known that reaches the bound
    certified: float | None  # share of predictions that provably stay
    agreement: float | None  # share that do stay
    mean: tuple[float, ...] | None  # of the change, over the inputs
    deviation: tuple[float, ...] | None  # if the inputs were Gaussian with their covariance


class TruncationGuarantees(Record, frozen=True):
    """Truncation of the class-centred forms."""

    radius: float  # of the ball ‖x‖ ≤ radius
    radius_origin: str  # `asked`, `data`, `box`, or `unit` where nothing is known of inputs
    level: float  # of certified agreement, where k was chosen by it
    chosen: Count | None  # k
    chosen_by: str  # `asked`, `agreement` or `none`
    points: tuple[TruncationGuarantee, ...]

    def __post_init__(self) -> None:
        require(len(self.points) > 0, "truncation has no points")


class Influence(Record, frozen=True):
    """The input that can move the class-centred logit of one class most, others anywhere."""

    output: Count
    input: Count
    bound: float  # no input moves it by more
    reached: float  # two points of the box that differ in this input alone


class InputUse(Record, frozen=True):
    """The inputs that the map does not use, and bounds on the effect of any single one."""

    unused: tuple[Count, ...]  # proven: every output is the same whatever they are
    num_undecided: Count  # terms cancel to rounding: neither proven used nor unused
    influence: tuple[Influence, ...]  # one for each class; none where no box is known


class RoundedClass(Record, frozen=True):
    """Bounds on how far rounding the weights moves the eigenpairs of one class-centred form."""

    change: float  # ‖ΔQ‖, at most
    norm: str  # `spectral`, or `frobenius` where that is all that is proven
    movement: float  # of an eigenvalue, at most
    largest: float  # |λ₁|
    sines: tuple[float, ...]  # of the angle of each leading eigenvector, at most; 1 says nothing


class RoundingStability(Record, frozen=True):
    """Weights stored with fewer bits."""

    kind: str  # `float16`, `bfloat16` or `int8`
    refused: str | None  # why nothing is said
    classes: tuple[RoundedClass, ...]

    def __post_init__(self) -> None:
        said = self.refused is not None or len(self.classes) > 0
        require(said, "stability has a kind without classes")


class Guarantees(Reading, frozen=True):
    """All that is proven about one classifier; null where it was not asked for."""

    box: Box | None  # null where nothing says it: without data, of a model that does not know it
    l2: EuclideanRadii | None  # with test inputs
    linf: LargestEntryRadii | None  # with test inputs, in a certificate
    truncation: TruncationGuarantees
    input_use: InputUse
    stability: tuple[RoundingStability, ...]  # in a certificate

    def check_fits(self, model: ModelFacts) -> None:
        """Refuse guarantees of another number of classes."""
        check_classes(self, len(model.output_names))


def check_classes(proven: Guarantees | Certificate, classes: int) -> None:
    """Refuse guarantees that do not fit the number of classes of the model."""
    points = proven.truncation.points
    require(all(len(point.bounds) == classes for point in points), "bounds and classes differ")
    outputs = [item.output for item in proven.input_use.influence]
    expected = [] if proven.box is None else list(range(classes))
    require(outputs == expected, "influence does not have one entry a class")
    inputs = proven.l2.inputs if proven.l2 is not None else ()
    require(all(item.label < classes for item in inputs), "a label is not a class")


class Certificate(Document, frozen=True, kw_only=True):
    """All that is proven about one classifier, and nothing else."""

    kind: Literal["certificate"] = "certificate"
    model: ModelSummary  # what was read
    exactness: tuple[Exactness, ...]  # the reading against the model's own forward pass
    box: Box | None  # in which every entry of an input lies; null where nothing says it
    l2: EuclideanRadii | None  # null without test inputs
    linf: LargestEntryRadii | None  # null without test inputs
    truncation: TruncationGuarantees
    input_use: InputUse
    stability: tuple[RoundingStability, ...]  # one entry for each format with fewer bits
    seed: Integer  # of the attack and the check of exactness
    source: Source  # where the weights come from
    data: DataOrigin | None  # which data the radii are of; null without data
    reproduce: Run  # what it takes to run the same again

    def __post_init__(self) -> None:
        check_input_shape(self.model)
        classes = len(self.model.output_names)
        require(classes > 1, "there are fewer than two output_names")
        require(len(self.exactness) > 0, "exactness is empty")
        check_classes(self, classes)
