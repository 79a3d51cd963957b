"""The mask that provably lowers the mean margin most, of all inputs or of the edge alone."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.certify.perturbation import universal_perturbation
from bilens.findings.attacks.masks import OPTIMAL, OPTIMAL_EDGE, Mask
from bilens.findings.attacks.objective import Objective


@dataclass(frozen=True, eq=False)
class Optimum:
    """A mask and its proof: no δ of a length lowers the mean margin by more than `lower` says.

    Attributes:
        mask: of the kind "optimal" or "optimal_edge".
        lower: (epsilons,), the proven bound of the change, not positive.
    """

    mask: Mask
    lower: Tensor


def optimum(objective: Objective, epsilons: Tensor, edge: Tensor | None = None) -> Optimum:
    """Return the optimal mask at each length.

    Cost: one eigendecomposition, see `certify.universal_perturbation`.

    Args:
        objective: what is lowered.
        epsilons: (num,), lengths.
        edge: indices of the inputs that may change; None for all.
    """
    allowed = objective if edge is None else objective.on(edge)
    change = allowed.change
    zero = torch.zeros(change.sizes.d_in, dtype=torch.float64)
    found = universal_perturbation(change, zero, 0, 1, epsilons)
    deltas = found.delta
    if edge is not None:
        deltas = torch.zeros(len(epsilons), objective.change.sizes.d_in, dtype=torch.float64)
        deltas[:, edge] = found.delta
    return Optimum(Mask(OPTIMAL if edge is None else OPTIMAL_EDGE, 1, deltas), found.lower)
