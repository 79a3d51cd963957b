"""An attack: what one change of every image does to a classifier, and what is proven about it."""

from typing import Literal

from bilens.records.base import Count, Document, Integer, Numbers, Record, require
from bilens.records.common import DataOrigin, ModelSummary, Run, Source, check_input_shape


class Effect(Record, frozen=True):
    """The effect of a perturbation on the attacked inputs that it is judged on, at each epsilon."""

    accuracy: Numbers  # share that keep their right answer
    margin: Numbers  # mean of f_label − f_target
    target_rate: Numbers  # share that are taken for the target


class PerturbationFinding(Record, frozen=True):
    """One perturbation of one objective."""

    kind: str  # the method
    member: Count  # counted from 1 within its kind
    change: Numbers  # of the mean margin over the inputs it is made from, exact, at each epsilon
    effect: Effect
    # with inputs cut to `box`, on `clipped_images` of the attacked images; null without a box
    clipped: Effect | None
    drawn_epsilon: float  # of the vector
    vector: Numbers  # the perturbation at that epsilon, rounded for drawing


class ObjectiveFinding(Record, frozen=True):
    """All perturbations of one objective, and what is proven about them."""

    target: Count
    source: Count | None  # null: every other class, by its share of those
    attacked_images: Count  # inputs of the source classes that it is judged on
    clipped_images: Count
    lower: Numbers  # proven: no perturbation of that length changes the mean margin by less
    lower_edge: Numbers | None  # the same for the edge alone; null without edge pixels
    proof_gap: float  # (change of the optimal one − lower) / |lower|, the largest of all lengths
    worst_excess: float  # how much lower than the optimal one any other came, relative; proven ≤ 0
    holds: bool  # `worst_excess` is within `tolerance`
    perturbations: tuple[PerturbationFinding, ...]


class MethodCurve(Record, frozen=True):
    """One perturbation method: the mean over its members and over all objectives."""

    kind: str  # the method
    reads: tuple[str, ...]  # what of model and data it is made of
    edge: bool  # it changes edge pixels alone
    members: Count
    effect: Effect
    clipped: Effect | None  # null where no box of the inputs is known
    change: Numbers  # at each epsilon
    gap: Numbers  # change less that of the optimal one, mean; at least 0 by the proof


class DataSplit(Record, frozen=True):
    """The inputs that perturbations are made from, and those that they are judged on."""

    made_from: Count
    judged_on: Count  # none of them among the first
    halved: bool  # the data that were given were split by the seed; else they came in two parts


class Attack(Document, frozen=True, kw_only=True):
    """An attack of a classifier by universal perturbations: the same change for every input."""

    kind: Literal["attack"] = "attack"
    holds: bool  # the proof holds for every objective, perturbation and epsilon
    tolerance: float  # relative, of the comparison with the optimal perturbation
    model: ModelSummary  # what was attacked
    epsilons: Numbers  # lengths ‖δ‖₂
    curves: tuple[MethodCurve, ...]  # one for each method
    objectives: tuple[ObjectiveFinding, ...]
    edge_pixels: Count
    random_perturbations: Count  # for each target
    restarts: Count  # of the projected gradient, for each length
    seed: Integer
    source: Source  # where the weights come from
    data: DataOrigin | None
    split: DataSplit | None = None  # null in an older document
    reproduce: Run  # what it takes to run the same again

    def __post_init__(self) -> None:
        check_input_shape(self.model)
        width, classes = self.model.d_input, len(self.model.output_names)
        lengths = len(self.epsilons)
        require(lengths > 0 and len(self.curves) > 0, "there is nothing to draw")
        require(len(self.objectives) > 0, "objectives is empty")
        for curve in self.curves:
            check_lengths(curve, lengths, curve.gap)
        for objective in self.objectives:
            named = max(objective.target, objective.source or 0)
            require(named < classes, "an objective names a class that is not there")
            for item in objective.perturbations:
                check_lengths(item, lengths)
                fits = len(item.vector) == width
                require(fits, f"a perturbation does not have {width} values")


def check_lengths(record: MethodCurve | PerturbationFinding, lengths: int, *more: Numbers) -> None:
    """Refuse numbers that are not one for each length of a perturbation."""
    effects = (record.effect, record.clipped)
    known = [item for item in effects if item is not None]
    rows = [row for item in known for row in (item.accuracy, item.margin, item.target_rate)]
    fits = all(len(row) == lengths for row in (record.change, *rows, *more))
    require(fits, f"{record.kind!r} does not have one number for each epsilon")
