"""The records of an audit: plain numbers and words, ready to be written as JSON.

Every field is said in the schema (`docs/report.md`); a report is drawn from these and from
nothing else.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Literal

from torch import Tensor

from bilens.findings.chance import Chance as Chance  # its public place
from bilens.findings.guarantees.records import Guarantees
from bilens.findings.warning_records import Overfitting, Triggers

SCHEMA_VERSION = 1
DRAWN_DIGITS = 5  # decimals of vectors that are only drawn; they have unit length
Outcome = Literal["pass", "warn", "fail", "info"]


def drawn(tensor: Tensor) -> tuple[float, ...]:
    """Return a vector as numbers that are precise enough to draw it."""
    return tuple(round(value, DRAWN_DIGITS) for value in tensor.tolist())


@dataclass(frozen=True)
class Exactness:
    """How far the reading xᵀQx + b·x + c is from the model's own forward pass."""

    precision: Literal["float32", "float64"]
    largest_error: float  # in logits, over all inputs and outputs
    relative_error: float  # largest_error / largest |logit|
    tolerance: float  # of the relative error
    num_inputs: int  # standard normal inputs

    @property
    def passed(self) -> bool:
        """Whether the relative error is within the tolerance."""
        return self.relative_error <= self.tolerance


@dataclass(frozen=True)
class Share:
    """Right answers of a data set, with the exact 95 % interval of Clopper and Pearson."""

    right: int
    total: int
    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Eigenvector:
    """One eigenpair of a class reading, in the input basis."""

    eigenvalue: float
    explained: float  # λ² / ‖Q‖_F²
    residual: float  # ‖Qv − λv‖
    subspace_size: int  # 1, or the number of eigenvalues that cannot be told apart
    vector: tuple[float, ...]  # unit length, largest component positive


@dataclass(frozen=True)
class ClassReading:
    """What the weights say about one class, against the mean of all classes."""

    index: int
    name: str
    eigenvalues: tuple[float, ...]  # all of them, by falling value
    positive: tuple[Eigenvector, ...]  # the largest eigenvalues
    negative: tuple[Eigenvector, ...]  # the smallest
    upper_edge: float  # 95 % edge of the largest eigenvalue under the rotation null
    lower_edge: float
    p_upper: float  # of the largest eigenvalue under that null
    p_lower: float
    significant_positive: int  # eigenvalues above the upper edge
    significant_negative: int
    effective_rank: float  # input basis, class-centred
    effective_rank_chance: Chance
    effective_rank_raw: float  # input basis, the class's own form
    effective_rank_embedding: float  # embedding basis, own form: the paper's convention
    frobenius_norm: float
    linear_norm: float  # ‖b‖, biases and residual path
    constant: float
    largest_residual: float
    complete: bool  # the whole spectrum passed the check of residual and orthogonality


@dataclass(frozen=True)
class TruncationPoint:
    """Accuracy when each class keeps its k leading eigenvectors."""

    k: int
    accuracy: float
    agreement: float  # share of predictions equal to the full model's


@dataclass(frozen=True)
class Contribution:
    """What one eigenvector adds to one class for one input."""

    rank: int  # position by falling |λ|, from 1
    eigenvalue: float
    overlap: float  # v·x
    value: float  # λ (v·x)², in logits
    vector: tuple[float, ...]


@dataclass(frozen=True)
class ClassScore:
    """How one class-centred logit of one input comes about."""

    index: int
    score: float  # the class-centred logit
    linear: float
    constant: float
    contributions: tuple[Contribution, ...]  # the largest in size
    rest: float  # the sum of all other eigenvectors


@dataclass(frozen=True)
class Explanation:
    """One prediction, taken apart exactly."""

    kind: str  # why it was chosen: "typical", "narrow", "wrong", or "asked"
    index: int  # in the test set
    label: int | None
    predicted: int
    image: tuple[float, ...]
    scores: tuple[float, ...]  # class-centred logits of all classes
    classes: tuple[ClassScore, ...]  # the two highest, and the label where it is another


@dataclass(frozen=True)
class Finding:
    """One sentence of the verdict: a rule, how it ended, and the numbers that fill the sentence."""

    rule: str
    outcome: Outcome
    values: dict[str, float | int | str]


@dataclass(frozen=True)
class ModelSummary:
    """What was read."""

    kind: str
    d_input: int
    d_hidden: int
    d_output: int
    bias: bool
    residual: bool
    num_parameters: int
    dtype: str
    input_shape: tuple[int, int]
    input_shape_assumed: bool
    output_names: tuple[str, ...]
    input_names: tuple[str, ...] | None  # of columns; None where inputs have numbers alone


@dataclass(frozen=True)
class AuditFindings:
    """All that one audit found."""

    model: ModelSummary
    exactness: tuple[Exactness, ...]
    accuracy: Share | None
    classes: tuple[ClassReading, ...]
    truncation: tuple[TruncationPoint, ...]
    explanations: tuple[Explanation, ...]
    verdict: tuple[Finding, ...]
    guarantees: Guarantees | None  # None where formula and model disagree: nothing is proven then
    overfitting: Overfitting
    triggers: Triggers
    null_samples: int
    seed: int

    @property
    def passed(self) -> bool:
        """Whether no rule failed."""
        return all(finding.outcome != "fail" for finding in self.verdict)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON values."""
        content = asdict(self)
        for record, exactness in zip(content["exactness"], self.exactness, strict=True):
            record["passed"] = exactness.passed
        return {"schema_version": SCHEMA_VERSION, "kind": "audit", "passed": self.passed, **content}
