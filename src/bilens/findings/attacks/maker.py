"""All masks of one objective, the optimal ones and the others."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.findings.attacks.baselines import mean_difference, random_phases
from bilens.findings.attacks.class_means import ClassMeans
from bilens.findings.attacks.masks import (
    MEAN_DIFFERENCE,
    MENDED,
    MENDED_EDGE,
    PROJECTED_GRADIENT,
    PUBLISHED,
    PUBLISHED_EDGE,
    RANDOM,
    RANDOM_EDGE,
    Mask,
    only,
    scaled,
)
from bilens.findings.attacks.objective import Objective
from bilens.findings.attacks.optimal import Optimum, optimum
from bilens.findings.attacks.projected_gradient import projected_gradient
from bilens.findings.attacks.request import AttackRequest


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
