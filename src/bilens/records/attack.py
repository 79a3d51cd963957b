"""An attack: what one change of every image does to a classifier, and what is proven about it."""

from typing import Annotated, Literal

from bilens.records.base import Count, Document, Integer, Numbers, Record, require
from bilens.records.common import DataOrigin, ModelSummary, Run, Source, check_input_shape
from bilens.records.view import View


class Effect(Record, frozen=True):
    """The effect of a perturbation on the attacked inputs that it is judged on, at each epsilon."""

    accuracy: Annotated[Numbers, View("share that keep their right answer", "percent")]
    margin: Annotated[Numbers, View("mean of f_label − f_target", "fixed2")]
    target_rate: Annotated[Numbers, View("share that are taken for the target", "percent")]


class PerturbationFinding(Record, frozen=True):
    """One perturbation of one objective."""

    kind: Annotated[str, "the method"]
    member: Annotated[Count, "counted from 1 within its kind"]
    change: Annotated[Numbers, "of the mean margin over inputs it is made from, at each epsilon"]
    effect: Annotated[Effect, "on the attacked inputs"]
    clipped: Annotated[Effect | None, "with `clipped_images` cut to `box`; null without a box"]
    drawn_epsilon: Annotated[float, "of the vector"]
    vector: Annotated[Numbers, "the perturbation at that epsilon, rounded for drawing"]


class ObjectiveFinding(Record, frozen=True):
    """All perturbations of one objective, and what is proven about them."""

    target: Annotated[Count, "the class that inputs are moved to"]
    source: Annotated[Count | None, "null: every other class, by its share of those"]
    attacked_images: Annotated[Count, "inputs of the source classes that it is judged on"]
    clipped_images: Annotated[Count, "attacked images that `clipped` is judged on"]
    lower: Annotated[Numbers, "proven: no perturbation of this length changes the mean margin less"]
    lower_edge: Annotated[Numbers | None, "the same for the edge alone; null without edge pixels"]
    proof_gap: Annotated[float, "largest (change of the optimal one − lower) / |lower|"]
    worst_excess: Annotated[float, "how much lower than the optimal one others came; proven ≤ 0"]
    holds: Annotated[bool, "`worst_excess` is within `tolerance`"]
    perturbations: Annotated[tuple[PerturbationFinding, ...], "one or more of each method"]


class MethodCurve(Record, frozen=True):
    """One perturbation method: the mean over its members and over all objectives."""

    kind: Annotated[str, "the method"]
    reads: Annotated[tuple[str, ...], "what of model and data it is made of"]
    edge: Annotated[bool, "it changes edge pixels alone"]
    members: Annotated[Count, "perturbations that the method makes for an objective"]
    effect: Annotated[Effect, "on the attacked inputs"]
    clipped: Annotated[Effect | None, "null where no box of the inputs is known"]
    change: Annotated[Numbers, "at each epsilon"]
    gap: Annotated[Numbers, View("mean change, less that of the optimal one; proven ≥ 0", "fixed3")]


class DataSplit(Record, frozen=True):
    """The inputs that perturbations are made from, and those that they are judged on."""

    made_from: Annotated[Count, "inputs that perturbations are made from"]
    judged_on: Annotated[Count, "none of them among the first"]
    halved: Annotated[bool, "the data were split by the seed; else they came in two parts"]


class Attack(Document, frozen=True, kw_only=True):
    """An attack of a classifier by universal perturbations: the same change for every input."""

    kind: Annotated[Literal["attack"], "of the document"] = "attack"
    holds: Annotated[bool, "the proof holds for every objective, perturbation and epsilon"]
    tolerance: Annotated[float, "relative, of the comparison with the optimal perturbation"]
    model: Annotated[ModelSummary, "what was attacked"]
    epsilons: Annotated[Numbers, "lengths ‖δ‖₂"]
    curves: Annotated[tuple[MethodCurve, ...], "one for each method"]
    objectives: Annotated[tuple[ObjectiveFinding, ...], "one for each target, or its source"]
    edge_pixels: Annotated[Count, "inputs that the methods of the edge may change"]
    random_perturbations: Annotated[Count, "for each target"]
    restarts: Annotated[Count, "of the projected gradient, for each length"]
    seed: Annotated[Integer, "of the random perturbations and of the split of the data"]
    source: Annotated[Source, "where the weights come from"]
    data: Annotated[DataOrigin | None, "which data were attacked; null for none"]
    split: Annotated[DataSplit | None, "null in an older document"] = None
    reproduce: Annotated[Run, "what it takes to run the same again"]

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
