"""The geometric median: the point with the least summed distance to all rows."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError

MOST_STEPS = 200
TOLERANCE = 1e-6  # of the mean distance to the rows


def geometric_median(x: Tensor) -> Tensor:
    """Return argmin_m Σ ‖x_b − m‖, (rows, n) → (n,), to about 10⁻⁶ of the mean distance.

    It stays where most of the rows are, whatever a few huge ones are.

    Math: Weiszfeld's iteration, the mean of the rows weighted by 1 / ‖x_b − m‖. A row at m has
        no weight; it holds m back by the share that its own subgradient takes of the step.
    Cost: O(rows · n) a step, at most 200 steps.

    Raises:
        ShapeError: If x is not a dense real matrix with at least one row.
        NonFiniteError: If an entry is NaN or infinite.

    Source: Vardi and Zhang, PNAS 97 (2000), 1423.
    """
    num_rows, _ = check_float_tensor("x", x, num_axes=2)
    if num_rows == 0:
        raise ShapeError("x has no rows; a median needs at least one.")
    wide = x.detach().double()
    median = wide.mean(dim=0)
    for _ in range(MOST_STEPS):
        distances = (wide - median).norm(dim=1)
        scale = distances.mean()
        apart = distances > TOLERANCE * scale
        if not bool(apart.any()):
            break
        weights = torch.where(apart, 1 / distances.clamp(min=1e-300), 0)
        towards = weights @ wide / weights.sum()
        pull = weights.sum() * (towards - median).norm()
        held = min(1.0, float((~apart).sum()) / float(pull)) if bool(pull > 0) else 1.0
        step = (1 - held) * (towards - median)
        median = median + step
        if bool(step.norm() <= TOLERANCE * scale):
            break
    return median.to(x.dtype)
