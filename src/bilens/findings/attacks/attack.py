"""The attack of one classifier: masks of every kind, at equal length, on the same test images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_count
from bilens.errors import UsageError
from bilens.findings.attacks.baselines import mean_difference, random_phases
from bilens.findings.attacks.class_means import ClassMeans
from bilens.findings.attacks.judge import Judge
from bilens.findings.attacks.masks import (
    EDGE,
    MEAN_DIFFERENCE,
    MENDED,
    MENDED_EDGE,
    PROJECTED_GRADIENT,
    PUBLISHED,
    PUBLISHED_EDGE,
    RANDOM,
    RANDOM_EDGE,
    Mask,
    at_edge,
    only,
    scaled,
)
from bilens.findings.attacks.objective import Objective, objective_of
from bilens.findings.attacks.optimal import Optimum, optimum
from bilens.findings.attacks.projected_gradient import projected_gradient
from bilens.findings.attacks.pseudo_inverse import mended_keys, published_keys
from bilens.findings.attacks.records import AttackFindings, MaskFinding, ObjectiveFinding
from bilens.findings.attacks.summary import curves_of
from bilens.findings.audit import SEED_LIMIT, LabelledImages, in_float64, summarise
from bilens.findings.records import drawn
from bilens.nn import BilinearClassifier

# 4.2 is the paper's mask of standard deviation 0.15 at 784 pixels, 8.4 that of 0.30.
EPSILONS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.2, 6.0, 8.4)
DRAWN_NEAR = 4.2  # the masks are drawn at the epsilon nearest to this one
Progress = Callable[[str, int, int], None]


@dataclass(frozen=True)
class AttackRequest:
    """What is attacked, and how.

    Attributes:
        target: the class that should win; None for every class in turn.
        source: the class that should lose; None for every other.
        pairs: whether each source class is attacked with a mask of its own.
        epsilons: lengths ‖δ‖₂ of the masks, in units of a pixel's range; sorted, without doubles.
        random_masks: how many random masks of each kind.
        restarts: descents of the projected gradient, for each length.
        seed: of the random masks and of the starting points.

    Raises:
        UsageError: If a length is negative or not finite, there is none, or a number is out of
            range.
    """

    target: int | None = None
    source: int | None = None
    pairs: bool = False
    epsilons: Sequence[float] = EPSILONS
    random_masks: int = 3
    restarts: int = 3
    seed: int = 0

    def __post_init__(self) -> None:
        lengths = [float(epsilon) for epsilon in self.epsilons]
        if not lengths or not all(math.isfinite(length) and length >= 0 for length in lengths):
            raise UsageError(
                f"epsilon must be one or several finite numbers of at least 0, got {lengths}: "
                "it is the length of the mask, 0 changes nothing."
            )
        object.__setattr__(self, "epsilons", tuple(sorted({*lengths})))
        check_count("random_masks", self.random_masks, minimum=1)
        check_count("restarts", self.restarts, minimum=1)
        if check_count("seed", self.seed, minimum=0) >= SEED_LIMIT:
            raise UsageError(f"seed must be below 2**32, got {self.seed}.")

    def objectives(self, f: QuadraticMap, means: ClassMeans) -> Iterator[Objective]:
        """Yield what is asked for, one objective after the other."""
        classes = range(f.sizes.d_out)
        for target in classes if self.target is None else (self.target,):
            if self.target is None and target == self.source:
                continue
            if self.source is None and self.pairs:
                for source in classes:
                    if source != target:
                        yield objective_of(f, means, target, source)
            else:
                yield objective_of(f, means, target, self.source)


@dataclass(frozen=True, eq=False)
class MaskMaker:
    """What the masks of every objective are made of.

    Attributes:
        means: of the training images.
        published: keys in pixels, (classes, used, in).
        mended: the same, from pixel-space vectors.
        edge: indices of the edge pixels, (kept,).
        shape: rows and columns of an image.
        request: lengths, numbers of masks, seed.
    """

    means: ClassMeans
    published: Tensor
    mended: Tensor
    edge: Tensor
    shape: tuple[int, int]
    request: AttackRequest

    @property
    def lengths(self) -> Tensor:
        """(epsilons,) float64."""
        return torch.tensor(self.request.epsilons, dtype=torch.float64)

    def optima(self, objective: Objective) -> list[Optimum]:
        """Return the optimal mask and, where there are edge pixels, that of the edge."""
        found = [optimum(objective, self.lengths)]
        if len(self.edge) > 0:
            found.append(optimum(objective, self.lengths, self.edge))
        return found

    def others(self, objective: Objective) -> list[Mask]:
        """Return the masks that are not optimal."""
        generator = torch.Generator().manual_seed(self.request.seed)
        published, mended = self.published[objective.target], self.mended[objective.target]
        noises = [
            random_phases(published[0], self.shape, generator)
            for _ in range(self.request.random_masks)
        ]
        directions: dict[str, Sequence[Tensor] | Tensor] = {
            PUBLISHED: published,
            MENDED: mended,
            RANDOM: noises,
            MEAN_DIFFERENCE: [mean_difference(self.means, objective)],
            PUBLISHED_EDGE: [only(key, self.edge) for key in published],
            MENDED_EDGE: [only(key, self.edge) for key in mended],
            RANDOM_EDGE: [only(noise, self.edge) for noise in noises],
        }
        masks = [
            scaled(kind, member, direction, objective, self.lengths)
            for kind, members in directions.items()
            for member, direction in enumerate(members, 1)
        ]
        descent = projected_gradient(objective, self.lengths, generator, self.request.restarts)
        return [*(mask for mask in masks if mask), Mask(PROJECTED_GRADIENT, 1, descent)]


def attack_classifier(
    module: nn.Module,
    training: LabelledImages,
    test: LabelledImages,
    request: AttackRequest,
    *,
    input_shape: tuple[int, ...] | None = None,
    output_names: tuple[str, ...] | None = None,
    progress: Progress = lambda _stage, _done, _total: None,
) -> AttackFindings:
    """Return what universal masks of every kind do to a one-layer bilinear classifier.

    Masks are made from weights and training images and judged on the test images.

    Cost: for each objective two eigendecompositions, O(hidden³ + hidden² · in), and
        O(test images · masks · epsilons · out · in); O(test images · epsilons · out) memory.

    Args:
        module: a `BilinearClassifier` with one layer and no gate; it is not changed.
        training: images that means are taken from.
        test: images that the masks are judged on.
        request: what is attacked.
        input_shape: how an input is laid out; None assumes a square image where that fits.
        output_names: one name for each class; None counts them.
        progress: called with (stage, done, total).

    Raises:
        UsageError: If the module is not a classifier of ours, a class does not exist or has no
            images, or source is target.
        NotQuadraticError: If it is gated or has more than one layer.
        ShapeError: If the data do not fit the model.
        NonFiniteError: If a weight or pixel is NaN or infinite.
        MemoryLimitError: If an eigendecomposition would not fit.
    """
    if not isinstance(module, BilinearClassifier):
        raise UsageError(
            f"an attack reads a BilinearClassifier, got a {type(module).__name__}: use "
            "bl.certify.universal_perturbation on the map of another layer."
        )
    wide = in_float64(module)
    f = wide.quadratic_map().detach()  # refuses a gated or deeper model
    summary = summarise(module, input_shape, output_names)
    if summary.d_output < 2:
        raise UsageError("an attack leads from one class to another, and this model has one.")
    for data in (training, test):
        data.check(summary.d_input, summary.d_output)
    progress("means", 0, 1)
    means = ClassMeans.of(training.images, training.labels, summary.d_output)
    objectives = list(request.objectives(f, means))
    progress("spectra", 0, 1)
    maker = MaskMaker(
        means,
        published_keys(wide),
        mended_keys(wide),
        at_edge(means.overall),
        summary.input_shape,
        request,
    )
    images = test.images.detach().double()
    scores = f(images)
    found = []
    for done, objective in enumerate(objectives):
        progress("attacks", done, len(objectives))
        judge = judge_of(f, images, test.labels, scores, objective)
        found.append(attack_objective(objective, maker, judge, request))
    progress("attacks", len(objectives), len(objectives))
    return AttackFindings(
        model=summary,
        epsilons=tuple(request.epsilons),
        curves=curves_of(found),
        objectives=tuple(found),
        edge_pixels=len(maker.edge),
        random_masks=request.random_masks,
        restarts=request.restarts,
        seed=request.seed,
    )


def judge_of(
    f: QuadraticMap, images: Tensor, labels: Tensor, scores: Tensor, objective: Objective
) -> Judge:
    """Return the judge of an objective: the test images of its source classes.

    Raises:
        UsageError: If there are none.
    """
    attacked = torch.isin(labels, torch.tensor(objective.sources))
    if not bool(attacked.any()):
        raise UsageError(
            f"there are no test images of the source classes {list(objective.sources)}, so nothing "
            f"can be led to class {objective.target}: choose another source."
        )
    return Judge(f, images[attacked], labels[attacked], scores[attacked], objective.target)


def attack_objective(
    objective: Objective, maker: MaskMaker, judge: Judge, request: AttackRequest
) -> ObjectiveFinding:
    """Return what all masks of one objective do, and whether one lowers the mean margin more."""
    optima = maker.optima(objective)
    best = [objective.changes(item.mask.deltas) for item in optima]
    lengths = request.epsilons
    place = min(range(len(lengths)), key=lambda index: abs(lengths[index] - DRAWN_NEAR))
    found, excess = [], []
    for mask in [*(item.mask for item in optima), *maker.others(objective)]:
        change = objective.changes(mask.deltas)
        reference = best[1 if mask.kind in EDGE else 0]
        excess.append(largest_share(reference - change, reference))
        found.append(
            MaskFinding(
                kind=mask.kind,
                member=mask.member,
                change=tuple(change.tolist()),
                effect=judge.effect(mask.deltas),
                clipped=judge.clipped_effect(mask.deltas),
                drawn_epsilon=lengths[place],
                vector=drawn(mask.deltas[place]),
            )
        )
    lowers = [item.lower for item in optima]
    gaps = [largest_share(own - low, low) for own, low in zip(best, lowers, strict=True)]
    return ObjectiveFinding(
        target=objective.target,
        source=objective.source,
        attacked_images=len(judge.labels),
        clipped_images=len(judge.sample),
        lower=tuple(lowers[0].tolist()),
        lower_edge=tuple(lowers[1].tolist()) if len(lowers) > 1 else None,
        proof_gap=max(gaps),
        worst_excess=max(excess),
        masks=tuple(found),
    )


def largest_share(differences: Tensor, of: Tensor) -> float:
    """Return the largest difference relative to |of|, absolute where that is zero."""
    return float((differences / torch.where(of == 0, 1.0, of.abs())).max())
