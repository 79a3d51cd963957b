"""Proven guarantees of a classifier, alone as a certificate or as a part of an audit.

None stands where a number would be infinite or where there is nothing to say.
"""

from __future__ import annotations

from typing import Annotated, Literal

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
from bilens.records.view import View


class Box(Record, frozen=True):
    """The interval in which every input entry lies."""

    low: Annotated[float, "lower end"]
    high: Annotated[float, "upper end"]
    origin: Annotated[
        str, "`pixels`: of training images; `data`: [0, 1], wider where data are; empty if older"
    ] = ""


class InputRadius(Record, frozen=True):
    """One input: no change shorter than `radius` flips it, one of length `distance` does."""

    index: Annotated[Count, "in the test set"]
    label: Annotated[Count, View("the right class", instead=0)]
    status: Annotated[str, "name of a `RadiusStatus`, in small letters"]
    radius: Annotated[float | None, "null: no input whatever is given to another class"]
    distance: Annotated[float | None, "null: no example was found"]
    rival: Annotated[Count | None, View("the class that is nearest", instead=None)]
    margin: Annotated[float, View("logit of the label minus the largest other one", instead=0.0)]


class CurvePoint(Record, frozen=True):
    """Certified accuracy: the share of inputs that no change up to a length can flip."""

    radius: Annotated[float, "length of a change"]
    share: Annotated[float, "of the inputs, that no such change flips"]


class EuclideanRadii(Record, frozen=True):
    """Radii in the Euclidean norm."""

    num_inputs: Annotated[Count, "test inputs"]
    num_right: Annotated[Count, "of them, the label has the largest logit at the input itself"]
    median: Annotated[float | None, "over all inputs, misclassified ones with 0; null if infinite"]
    curve: Annotated[tuple[CurvePoint, ...], "by rising radius"]
    statuses: Annotated[dict[str, Count], "how many inputs have each status"]
    num_open: Annotated[Count, "inputs with 0 < radius and a gap to the distance above 1e-6"]
    largest_gap: Annotated[float, "(distance − radius) / distance"]
    num_examples: Annotated[Count, "inputs with an example that lies elsewhere"]
    num_examples_in_box: Annotated[Count, "of them, still of another class once clamped to the box"]
    inputs: Annotated[tuple[InputRadius, ...], "one entry for each test input"]

    def __post_init__(self) -> None:
        require(len(self.curve) > 1, "the curve has fewer than two points")
        require(0 < self.num_inputs == len(self.inputs), "l2 has another number of inputs")


class InputInterval(Record, frozen=True):
    """One input, every entry moved by as much at most: lower ≤ true distance ≤ upper."""

    index: Annotated[Count, "in the test set"]
    status: Annotated[str, "name of a `RadiusStatus`, in small letters"]
    lower: Annotated[float | None, "proven: no change of less flips it"]
    upper: Annotated[float | None, "an example moves entries by as much; null where none was found"]


class LargestEntryRadii(Record, frozen=True):
    """Bounds in the ℓ∞ norm, where the exact distance is NP-hard to compute."""

    num_inputs: Annotated[Count, "test inputs"]
    median_lower: Annotated[float | None, "over all inputs; null where it is infinite"]
    median_upper: Annotated[float | None, "over all inputs; null where it is infinite"]
    restarts: Annotated[Count, "of the attack that bounds from above"]
    steps: Annotated[Count, "of the attack, in each restart"]
    inputs: Annotated[tuple[InputInterval, ...], "one entry for each test input"]


class TruncationGuarantee(Record, frozen=True):
    """A bound on the change of the logits where k eigenpairs of each class form are kept."""

    k: Annotated[Count, "eigenpairs of each class that are kept"]
    bounds: Annotated[tuple[float, ...], "of each class, in logits, over the ball"]
    attained: Annotated[tuple[bool, ...], "an input of the ball is known that reaches the bound"]
    certified: Annotated[float | None, View("share that provably stays", "percent", "higher")]
    agreement: Annotated[float | None, View("share that do stay", "percent", "higher")]
    mean: Annotated[tuple[float, ...] | None, "of the change, over the inputs"]
    deviation: Annotated[tuple[float, ...] | None, "for Gaussian inputs of their covariance"]


class TruncationGuarantees(Record, frozen=True):
    """Truncation of the class-centred forms."""

    radius: Annotated[float, "of the ball ‖x‖ ≤ radius"]
    radius_origin: Annotated[str, "`asked`, `data`, `box`, or `unit` if nothing is known of inputs"]
    level: Annotated[float, "of certified agreement, where k was chosen by it"]
    chosen: Annotated[Count | None, "k"]
    chosen_by: Annotated[str, "`asked`, `agreement` or `none`"]
    points: Annotated[tuple[TruncationGuarantee, ...], "by rising k"]

    def __post_init__(self) -> None:
        require(len(self.points) > 0, "truncation has no points")


class Influence(Record, frozen=True):
    """The input that can move the class-centred logit of one class most, others anywhere."""

    output: Annotated[Count, "the class"]
    input: Annotated[Count, "position among the inputs"]
    bound: Annotated[float, "no input moves it by more"]
    reached: Annotated[float, "two points of the box that differ in this input alone"]


class InputUse(Record, frozen=True):
    """The inputs that the map does not use, and bounds on the effect of any single one."""

    unused: Annotated[tuple[Count, ...], "proven: every output is the same whatever they are"]
    num_undecided: Annotated[Count, "terms cancel to rounding: neither proven used nor unused"]
    influence: Annotated[tuple[Influence, ...], "one for each class; none where no box is known"]


class RoundedClass(Record, frozen=True):
    """Bounds on how far rounding the weights moves the eigenpairs of one class-centred form."""

    change: Annotated[float, "‖ΔQ‖, at most"]
    norm: Annotated[str, "`spectral`, or `frobenius` where that is all that is proven"]
    movement: Annotated[float, "of an eigenvalue, at most"]
    largest: Annotated[float, "|λ₁|"]
    sines: Annotated[tuple[float, ...], "of leading eigenvectors' angles, at most; 1 says nothing"]


class RoundingStability(Record, frozen=True):
    """Weights stored with fewer bits."""

    kind: Annotated[str, "`float16`, `bfloat16` or `int8`"]
    refused: Annotated[str | None, "why nothing is said"]
    classes: Annotated[tuple[RoundedClass, ...], "one entry for each class; empty where refused"]

    def __post_init__(self) -> None:
        said = self.refused is not None or len(self.classes) > 0
        require(said, "stability has a kind without classes")


class Guarantees(Reading, frozen=True):
    """All that is proven about one classifier; null where it was not asked for."""

    box: Annotated[Box | None, "null where neither data nor model say it"]
    l2: Annotated[EuclideanRadii | None, "with test inputs"]
    linf: Annotated[LargestEntryRadii | None, "with test inputs, in a certificate"]
    truncation: Annotated[TruncationGuarantees, "what few eigenpairs change"]
    input_use: Annotated[InputUse, "inputs without use, and the most that one can do"]
    stability: Annotated[tuple[RoundingStability, ...], "in a certificate"]

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

    kind: Annotated[Literal["certificate"], "of the document"] = "certificate"
    model: Annotated[ModelSummary, "what was read"]
    exactness: Annotated[tuple[Exactness, ...], "the reading against the model's own forward pass"]
    box: Annotated[Box | None, "in which every entry of an input lies; null where nothing says it"]
    l2: Annotated[EuclideanRadii | None, "null without test inputs"]
    linf: Annotated[LargestEntryRadii | None, "null without test inputs"]
    truncation: Annotated[TruncationGuarantees, "what few eigenpairs change"]
    input_use: Annotated[InputUse, "inputs without use, and the most that one can do"]
    stability: Annotated[tuple[RoundingStability, ...], "one entry for each format with fewer bits"]
    seed: Annotated[Integer, "of the attack and the check of exactness"]
    source: Annotated[Source, "where the weights come from"]
    data: Annotated[DataOrigin | None, "which data the radii are of; null without data"]
    reproduce: Annotated[Run, "what it takes to run the same again"]

    def __post_init__(self) -> None:
        check_input_shape(self.model)
        classes = len(self.model.output_names)
        require(classes > 1, "there are fewer than two output_names")
        require(len(self.exactness) > 0, "exactness is empty")
        check_classes(self, classes)
