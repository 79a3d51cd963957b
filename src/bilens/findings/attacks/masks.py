"""Masks: what an attack adds to every input, at each length of a grid."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.findings.attacks.objective import Objective

OPTIMAL, OPTIMAL_EDGE = "optimal", "optimal_edge"
PUBLISHED, PUBLISHED_EDGE = "published", "published_edge"
MENDED, MENDED_EDGE = "mended", "mended_edge"
RANDOM, RANDOM_EDGE = "random", "random_edge"
MEAN_DIFFERENCE, PROJECTED_GRADIENT = "mean_difference", "projected_gradient"
# The kinds in the order in which they are shown, and what of model and data each one reads. What
# starts from weights alone takes its sign from the class means: v and −v are one eigenvector.
READS: dict[str, tuple[str, ...]] = {
    OPTIMAL: ("weights", "class_means"),
    PUBLISHED: ("weights", "class_means"),
    MENDED: ("weights", "class_means"),
    RANDOM: ("weights", "class_means"),
    MEAN_DIFFERENCE: ("class_means",),
    PROJECTED_GRADIENT: ("weights", "training_images"),
    OPTIMAL_EDGE: ("weights", "class_means", "mean_image"),
    PUBLISHED_EDGE: ("weights", "class_means", "mean_image"),
    MENDED_EDGE: ("weights", "class_means", "mean_image"),
    RANDOM_EDGE: ("weights", "class_means", "mean_image"),
}
EDGE = {OPTIMAL_EDGE, PUBLISHED_EDGE, MENDED_EDGE, RANDOM_EDGE}  # change edge pixels alone
EDGE_INTENSITY = 0.01  # mean of a pixel over the training images below which it is at the edge


@dataclass(frozen=True, eq=False)
class Mask:
    """One attack.

    Attributes:
        kind: one of READS.
        member: counted from 1 within its kind: the eigenvector, or the random draw.
        deltas: (epsilons, in), what is added to every input; ‖deltas[i]‖ ≤ epsilons[i].
    """

    kind: str
    member: int
    deltas: Tensor


def scaled(
    kind: str, member: int, direction: Tensor, objective: Objective, epsilons: Tensor
) -> Mask | None:
    """Return a direction at each length, with the sign that lowers the mean margin more.

    δᵀĀδ is the same for both signs, so ḡ·δ decides, at every length. None for a zero direction.
    """
    length = float(direction.norm())
    if length == 0:
        return None
    sign = -1.0 if float(objective.gradient @ direction) > 0 else 1.0
    return Mask(kind, member, epsilons[:, None] * (sign * direction / length))


def at_edge(mean_image: Tensor) -> Tensor:
    """Return the indices of the pixels that are almost always dark, (kept,)."""
    return torch.nonzero(mean_image < EDGE_INTENSITY).flatten()


def only(direction: Tensor, inputs: Tensor) -> Tensor:
    """Return a direction that is zero outside some inputs."""
    kept = torch.zeros_like(direction)
    kept[inputs] = direction[inputs]
    return kept
