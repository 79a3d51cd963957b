"""Projected gradient descent: what an attacker without the closed form would run."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.findings.attacks.objective import Objective

STEPS = 200
STRIDE = 0.25  # length of a step in units of ε; at a twentieth the end is 2 % off


def projected_gradient(
    objective: Objective, epsilons: Tensor, generator: torch.Generator, restarts: int
) -> Tensor:
    """Return the best end of several descents at each length, (epsilons, in).

    Each starts at a random point of the sphere and follows the gradient of the mean margin over
    the training images, normalised, with projection onto the ball. The gradient is that of the
    whole training set at every step: for a quadratic model it is 2Āδ + ḡ, without sampling.

    Cost: STEPS · epsilons · restarts · O(hidden · in).

    Args:
        objective: what is lowered.
        epsilons: (num,), lengths.
        generator: of the starting points.
        restarts: descents for each length.
    """
    form = objective.change.form(torch.tensor([1.0, 0.0], dtype=torch.float64))
    radius = epsilons.repeat_interleave(restarts)[:, None]
    size = (len(radius), form.d_in)
    start = torch.randn(size, generator=generator, dtype=torch.float64)
    delta = radius * start / start.norm(dim=1, keepdim=True)
    for _ in range(STEPS):
        gradient = 2 * form.matvec(delta) + form.linear
        length = gradient.norm(dim=1, keepdim=True)
        step = torch.where(length > 0, gradient / length, 0.0)
        delta = delta - STRIDE * radius * step
        length = delta.norm(dim=1, keepdim=True)
        delta = delta * torch.where(length > radius, radius / length, 1.0)
    ends = delta.reshape(len(epsilons), restarts, -1)
    best = objective.changes(delta).reshape(len(epsilons), restarts).argmin(dim=1)
    chosen: Tensor = ends[torch.arange(len(epsilons)), best]
    return chosen
