"""The records of an attack: plain numbers and words, ready to be written as JSON."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

from bilens.findings.records import SCHEMA_VERSION, ModelSummary

Numbers = tuple[float, ...]  # one for each epsilon


@dataclass(frozen=True)
class Effect:
    """What a mask does to the attacked test images, at each epsilon."""

    accuracy: Numbers  # share that keep their right answer
    margin: Numbers  # mean of f_label − f_target
    target_rate: Numbers  # share that are taken for the target


@dataclass(frozen=True)
class MaskFinding:
    """One mask of one objective."""

    kind: str
    member: int  # counted from 1 within its kind
    change: Numbers  # of the mean margin over the training images, exact
    effect: Effect
    clipped: Effect  # with pixels cut to [0, 1], on `clipped_images` of the attacked images
    drawn_epsilon: float  # of the vector
    vector: Numbers  # (in,), the mask at that epsilon, rounded for drawing


@dataclass(frozen=True)
class ObjectiveFinding:
    """All masks of one objective, and what is proven about them."""

    target: int
    source: int | None  # None: every other class, by its share of the training images
    attacked_images: int  # test images of the source classes
    clipped_images: int
    lower: Numbers  # proven: no mask of that length changes the mean margin by less
    lower_edge: Numbers | None  # the same for masks of the edge; None without edge pixels
    proof_gap: float  # (change of the optimal mask − lower) / |lower|, the largest of all lengths
    worst_excess: float  # how much lower than the optimal mask any other came, relative; proven ≤ 0
    masks: tuple[MaskFinding, ...]

    @property
    def holds(self) -> bool:
        """Whether no mask lowers the mean margin more than the optimal one, up to rounding."""
        return self.worst_excess <= TOLERANCE


TOLERANCE = 1e-9  # relative, of the comparison of a mask with the optimal one


@dataclass(frozen=True)
class KindCurve:
    """One kind of mask: the mean over its members and over all objectives."""

    kind: str
    reads: tuple[str, ...]  # what of model and data it is made of
    edge: bool  # whether it changes edge pixels alone
    members: int
    effect: Effect
    clipped: Effect
    change: Numbers
    gap: Numbers  # change less that of the optimal mask, mean; at least 0 by the proof


@dataclass(frozen=True)
class AttackFindings:
    """All that one attack found."""

    model: ModelSummary
    epsilons: Numbers
    curves: tuple[KindCurve, ...]
    objectives: tuple[ObjectiveFinding, ...]
    edge_pixels: int
    random_masks: int
    restarts: int
    seed: int

    @property
    def holds(self) -> bool:
        """Whether the proof holds for every objective, mask and epsilon."""
        return all(objective.holds for objective in self.objectives)

    def to_dict(self) -> dict[str, Any]:
        """Return the findings as JSON values."""
        content = asdict(self)
        for record, objective in zip(content["objectives"], self.objectives, strict=True):
            record["holds"] = objective.holds
        return {
            "schema_version": SCHEMA_VERSION,
            "kind": "attack",
            "holds": self.holds,
            "tolerance": TOLERANCE,
            **content,
        }
