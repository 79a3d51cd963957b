"""The attack of one classifier: perturbations of every method, at equal length, judged alike."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import torch
from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base import Progress, silent
from bilens.base.errors import UsageError
from bilens.data.model_interface import LabelledData
from bilens.findings.perturbations import (
    EDGE,
    OPTIMAL,
    OPTIMAL_EDGE,
    READS,
    AttackRequest,
    ClassMeans,
    Objective,
    PerturbationMethods,
    at_edge,
    pixel_space_keys,
    products_of,
    published_keys,
)
from bilens.findings.subject import as_loaded, drawn, in_float64, summarise
from bilens.io.loaded_model import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.attack import (
    Attack,
    DataSplit,
    Effect,
    MethodCurve,
    ObjectiveFinding,
    PerturbationFinding,
)
from bilens.records.base import Numbers
from bilens.records.common import UNKNOWN, Origin
from bilens.train.randomness import drawn_rows

EFFECT = Effect.__struct_fields__
CLIPPED_IMAGES = 1000  # that the clipped effect is measured on, at most


@dataclass(frozen=True, eq=False)
class Judge:
    """The images that an attack is judged on, with what the model says of them; float64."""

    f: QuadraticMap
    images: Tensor  # (num, in)
    labels: Tensor  # (num,), none of them the target
    scores: Tensor  # (num, out), f of the images
    target: int  # the class that should win
    box: tuple[float, float] | None = None  # of all inputs; None where nothing says it

    def effect(self, deltas: Tensor) -> Effect:
        """Return accuracy, margin and target rate with each of (num, in) deltas, without a box."""
        slopes = 2 * products_of(self.f, deltas)  # (deltas, out, in)
        shifts = self.f(deltas)
        if self.f.constant is not None:
            shifts = shifts - self.f.constant
        moved = (self.images @ slopes.flatten(0, 1).T).reshape(-1, *shifts.shape)
        moved += shifts
        moved += self.scores[:, None]
        return self.measure_effect(moved.unbind(1), self.labels)

    @property
    def sample(self) -> Tensor:
        """Indices of the images that the clipped effect is measured on, drawn with the seed 0."""
        return drawn_rows(len(self.labels), CLIPPED_IMAGES)

    def clipped_effect(self, deltas: Tensor) -> Effect | None:
        """Return the same with inputs cut to their box, on the sample; None without a box."""
        if self.box is None:
            return None
        images, labels = self.images[self.sample], self.labels[self.sample]
        moved = [self.f((images + delta).clamp(*self.box)) for delta in deltas]
        return self.measure_effect(moved, labels)

    def measure_effect(self, moved: tuple[Tensor, ...] | list[Tensor], labels: Tensor) -> Effect:
        """Return the numbers of scores (images, out) for each delta."""
        accuracy, margin, rate = [], [], []
        for scores in moved:
            answers = scores.argmax(dim=1)
            own = scores.gather(1, labels[:, None])[:, 0]
            accuracy.append(float((answers == labels).double().mean()))
            margin.append(float((own - scores[:, self.target]).mean()))
            rate.append(float((answers == self.target).double().mean()))
        return Effect(tuple(accuracy), tuple(margin), tuple(rate))


def curves_of(objectives: Sequence[ObjectiveFinding]) -> tuple[MethodCurve, ...]:
    """Return the curves of the kinds that occur, in the order of READS."""
    curves = []
    for kind in READS:
        found: list[PerturbationFinding] = []
        optima: list[Numbers] = []
        for items in (objective.perturbations for objective in objectives):
            mine = [item for item in items if item.kind == kind]
            best = OPTIMAL_EDGE if kind in EDGE else OPTIMAL
            optima += [item.change for item in items if item.kind == best] * len(mine)
            found += mine
        if not found:
            continue
        change, members = average([item.change for item in found]), [one.member for one in found]
        cut = [item.clipped for item in found if item.clipped is not None]
        effect, clipped = mean_effect([item.effect for item in found]), mean_effect(cut)
        gap = tuple(own - least for own, least in zip(change, average(optima), strict=True))
        reads, edge, limited = READS[kind], kind in EDGE, clipped if cut else None
        curves.append(MethodCurve(kind, reads, edge, max(members), effect, limited, change, gap))
    return tuple(curves)


def mean_effect(effects: Sequence[Effect]) -> Effect:
    return Effect(**{name: average([getattr(one, name) for one in effects]) for name in EFFECT})


def average(rows: Sequence[Numbers]) -> Numbers:
    return tuple(fmean(column) for column in zip(*rows, strict=True))


TOLERANCE = 1e-9  # relative, of the comparison with the optimal perturbation
DRAWN_NEAR = 4.2  # the perturbations are drawn at the epsilon nearest to this one


def attack_classifier(
    model: LoadedModel | nn.Module,
    training: LabelledData,
    test: LabelledData,
    request: AttackRequest,
    *,
    halved: bool = False,
    box: tuple[float, float] | None = None,
    progress: Progress = silent,
    origin: Origin = UNKNOWN,
) -> Attack:
    """Attack a one-layer bilinear classifier with universal perturbations of every method.

    `box` is the interval that every input lies in, where that is known; `halved` tells that
    `training` and `test` are two parts of the same data.
    """
    loaded, labels = as_loaded(model), test.targets
    wide = in_float64(module_to_attack(loaded))
    f = map_to_attack(wide)
    assert training.targets is not None, "an attack leads from class to class"
    assert labels is not None, "it is judged by them"
    summary = summarise(loaded, None if loaded.source else test.shape)
    progress("means", 0, 1)
    means = ClassMeans.from_images(training.inputs, training.targets, summary.d_output)
    objectives = list(request.objectives(f, means))
    progress("spectra", 0, 1)
    # below zero lies no pixel, a named column is none, and dark is no word
    is_light = summary.input_names is None and float(training.inputs.min()) >= 0
    methods = PerturbationMethods(
        means,
        published_keys(wide),
        pixel_space_keys(wide),
        at_edge(means.overall) if is_light else torch.zeros(0, dtype=torch.int64),
        summary.input_shape,
        request,
    )
    images = test.inputs.detach().double()
    scores = f(images)
    found = []
    for done, objective in enumerate(objectives):
        progress("attacks", done, len(objectives))
        attacked = rows_of_sources(labels, objective)
        x, own, given = images[attacked], labels[attacked], scores[attacked]
        judge = Judge(f, x, own, given, objective.target, box)
        found.append(attack_objective(objective, methods, judge, request))
    progress("attacks", len(objectives), len(objectives))
    return Attack(
        holds=all(objective.holds for objective in found),
        tolerance=TOLERANCE,
        model=summary,
        epsilons=tuple(request.epsilons),
        curves=curves_of(found),
        objectives=tuple(found),
        edge_pixels=len(methods.edge),
        random_perturbations=request.random_perturbations,
        restarts=request.restarts,
        seed=request.seed,
        split=DataSplit(len(training.inputs), len(test.inputs), halved),
        **origin.fields(),
    )


def module_to_attack(loaded: LoadedModel) -> BilinearClassifier:
    """Return the module of a model; refuse one that no perturbation is made for."""
    if not isinstance(loaded.module, BilinearClassifier):
        raise UsageError(
            f"an attack reads a BilinearClassifier, got a {type(loaded.module).__name__}: use "
            "bl.certify.universal_perturbation on the map of another layer."
        )
    return loaded.module


def map_to_attack(module: BilinearClassifier) -> QuadraticMap:
    """Return the map of a classifier; refuse a gated or deeper one, and one of a single class."""
    f = module.quadratic_map().detach()
    if f.sizes.d_out < 2:
        raise UsageError("an attack leads from one class to another, and this model has one.")
    return f


def rows_of_sources(labels: Tensor, objective: Objective) -> Tensor:
    """Return which rows are of the classes that should lose, (rows,) bool; refuse none."""
    attacked = torch.isin(labels, torch.tensor(objective.sources))
    if not bool(attacked.any()):
        raise UsageError(
            f"no inputs to judge it on are of the source classes {list(objective.sources)}, so "
            f"nothing can be led to class {objective.target}: choose another source."
        )
    return attacked


def attack_objective(
    objective: Objective, methods: PerturbationMethods, judge: Judge, request: AttackRequest
) -> ObjectiveFinding:
    """Measure all perturbations of an objective; does one beat the proven optimum?"""
    optima = methods.optima(objective)
    best = [objective.changes(item.perturbation.deltas) for item in optima]
    lengths = request.epsilons
    position = min(range(len(lengths)), key=lambda index: abs(lengths[index] - DRAWN_NEAR))
    found, excess = [], []
    for perturbation in [*(item.perturbation for item in optima), *methods.controls(objective)]:
        change = objective.changes(perturbation.deltas)
        reference = best[1 if perturbation.kind in EDGE else 0]
        excess.append(largest_share(reference - change, reference))
        found.append(
            PerturbationFinding(
                kind=perturbation.kind,
                member=perturbation.member,
                change=tuple(change.tolist()),
                effect=judge.effect(perturbation.deltas),
                clipped=judge.clipped_effect(perturbation.deltas),
                drawn_epsilon=lengths[position],
                vector=drawn(perturbation.deltas[position]),
            )
        )
    lowers = [item.lower for item in optima]
    gaps = [largest_share(own - low, low) for own, low in zip(best, lowers, strict=True)]
    return ObjectiveFinding(
        target=objective.target,
        source=objective.source,
        attacked_images=len(judge.labels),
        clipped_images=0 if judge.box is None else len(judge.sample),
        lower=tuple(lowers[0].tolist()),
        lower_edge=tuple(lowers[1].tolist()) if len(lowers) > 1 else None,
        proof_gap=max(gaps),
        worst_excess=max(excess),
        holds=max(excess) <= TOLERANCE,
        perturbations=tuple(found),
    )


def largest_share(differences: Tensor, of: Tensor) -> float:
    """Return the largest difference relative to |of|, absolute where that is zero."""
    return float((differences / torch.where(of == 0, 1.0, of.abs())).max())
