"""The attack of one classifier: masks of every kind, at equal length, on the same test images."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.findings.attacks.class_means import ClassMeans
from bilens.findings.attacks.judge import Judge
from bilens.findings.attacks.maker import MaskMaker
from bilens.findings.attacks.masks import EDGE, at_edge
from bilens.findings.attacks.objective import Objective
from bilens.findings.attacks.pseudo_inverse import mended_keys, published_keys
from bilens.findings.attacks.request import AttackRequest
from bilens.findings.attacks.summary import curves_of
from bilens.findings.subject import LabelledImages, Progress, drawn, in_float64, silent, summarise
from bilens.nn import BilinearClassifier
from bilens.records.attack import Attack, ObjectiveFinding, PerturbationFinding
from bilens.records.origin import UNKNOWN, Origin

TOLERANCE = 1e-9  # relative, of the comparison with the optimal perturbation
DRAWN_NEAR = 4.2  # the masks are drawn at the epsilon nearest to this one


def attack_classifier(
    module: nn.Module,
    training: LabelledImages,
    test: LabelledImages,
    request: AttackRequest,
    *,
    input_shape: tuple[int, ...] | None = None,
    output_names: tuple[str, ...] | None = None,
    progress: Progress = silent,
    origin: Origin = UNKNOWN,
) -> Attack:
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
        origin: of weights and data.

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
    if f.sizes.d_out < 2:
        raise UsageError("an attack leads from one class to another, and this model has one.")
    for data in (training, test):
        data.check(f.sizes.d_in, f.sizes.d_out)
    summary = summarise(module, input_shape, output_names)
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
    holds = all(objective.holds for objective in found)
    return Attack(
        holds=holds,
        tolerance=TOLERANCE,
        model=summary,
        epsilons=tuple(request.epsilons),
        curves=curves_of(found),
        objectives=tuple(found),
        edge_pixels=len(maker.edge),
        random_perturbations=request.random_masks,
        restarts=request.restarts,
        seed=request.seed,
        source=origin.source,
        data=origin.data,
        reproduce=origin.reproduce,
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
            PerturbationFinding(
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
        holds=max(excess) <= TOLERANCE,
        perturbations=tuple(found),
    )


def largest_share(differences: Tensor, of: Tensor) -> float:
    """Return the largest difference relative to |of|, absolute where that is zero."""
    return float((differences / torch.where(of == 0, 1.0, of.abs())).max())
