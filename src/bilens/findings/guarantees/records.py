"""The records of what is proven: plain numbers and words, ready to be written as JSON.

None stands where a number would be infinite or where there is nothing to say; every field is said
in `docs/certifying.md`, and a report is drawn from these and from nothing else.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Chosen = Literal["asked", "agreement", "none"]
BallOrigin = Literal["asked", "data", "box"]


@dataclass(frozen=True)
class Box:
    """The interval in which every input entry lies: [0, 1], wider where the data are."""

    low: float
    high: float


@dataclass(frozen=True)
class InputRadius:
    """One input: no change shorter than `radius` flips it, one of length `distance` does."""

    index: int  # in the test set
    label: int
    status: str  # name of a `RadiusStatus`, in small letters
    radius: float | None  # None: no input whatever is given to another class
    distance: float | None  # None: no example was found
    rival: int | None  # the class that is nearest
    margin: float  # logit of the label minus the largest other one


@dataclass(frozen=True)
class CurvePoint:
    """Certified accuracy: the share of inputs that no change up to a length can flip."""

    radius: float
    share: float


@dataclass(frozen=True)
class EuclideanRadii:
    """Radii in the Euclidean norm."""

    num_inputs: int
    num_right: int  # of them, the label has the largest logit at the input itself
    median: float | None  # over all inputs, those misclassified with 0; None where it is infinite
    curve: tuple[CurvePoint, ...]
    statuses: dict[str, int]
    num_open: int  # inputs with 0 < radius and a gap above 1e-6 between radius and distance
    largest_gap: float  # (distance − radius) / distance
    num_examples: int  # inputs with an example that lies elsewhere
    num_examples_in_box: int  # of them, still given to another class once clamped to the box
    inputs: tuple[InputRadius, ...]


@dataclass(frozen=True)
class InputInterval:
    """One input, every entry moved by as much at most: lower ≤ true distance ≤ upper."""

    index: int
    status: str
    lower: float | None
    upper: float | None


@dataclass(frozen=True)
class LargestEntryRadii:
    """Bounds in the ℓ∞ norm, where the exact distance is NP-hard to compute."""

    num_inputs: int
    median_lower: float | None
    median_upper: float | None
    restarts: int
    steps: int
    inputs: tuple[InputInterval, ...]


@dataclass(frozen=True)
class TruncationGuarantee:
    """What keeping k eigenpairs of each class form can change at most."""

    k: int
    bounds: tuple[float, ...]  # of each class, in logits, over the ball
    attained: tuple[bool, ...]  # an input of the ball is known that reaches the bound
    certified: float | None  # share of predictions that provably stay
    agreement: float | None  # share that do stay
    mean: tuple[float, ...] | None  # of the change, over the inputs
    deviation: tuple[float, ...] | None  # if the inputs were Gaussian with their covariance


@dataclass(frozen=True)
class TruncationGuarantees:
    """Truncation of the class-centred forms."""

    radius: float  # of the ball ‖x‖ ≤ radius
    radius_origin: BallOrigin
    level: float  # of certified agreement, where k was chosen by it
    chosen: int | None
    chosen_by: Chosen
    points: tuple[TruncationGuarantee, ...]


@dataclass(frozen=True)
class Influence:
    """The input that can move the class-centred logit of one class most, others anywhere."""

    output: int
    input: int
    bound: float  # no input moves it by more
    reached: float  # two points of the box that differ in this input alone


@dataclass(frozen=True)
class InputUse:
    """Which inputs the map does not use, and how much one of them can do."""

    unused: tuple[int, ...]  # proven: every output is the same whatever they are
    num_undecided: int  # terms cancel to rounding: neither proven used nor unused
    influence: tuple[Influence, ...]  # one for each class


@dataclass(frozen=True)
class RoundedClass:
    """What rounding the weights can do to one class-centred form."""

    change: float  # ‖ΔQ‖₂, at most
    norm: str  # "spectral", or "frobenius" where that is all that is proven
    movement: float  # of an eigenvalue, at most
    largest: float  # |λ₁|
    sines: tuple[float, ...]  # of the angle of each leading eigenvector, at most; 1 says nothing


@dataclass(frozen=True)
class RoundingStability:
    """Weights stored with fewer bits."""

    kind: str  # "float16", "bfloat16" or "int8"
    refused: str | None  # why nothing is said
    classes: tuple[RoundedClass, ...]


@dataclass(frozen=True)
class Guarantees:
    """All that is proven about one classifier; None where it was not asked for."""

    box: Box
    l2: EuclideanRadii | None  # with test inputs
    linf: LargestEntryRadii | None  # with test inputs, in a certificate
    truncation: TruncationGuarantees
    input_use: InputUse
    stability: tuple[RoundingStability, ...]  # in a certificate
