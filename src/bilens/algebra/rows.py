"""Rows of a matrix: brought to unit length, and their geometric median."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError

MOST_STEPS = 200
TOLERANCE = 1e-6  # of the mean distance to the rows


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of unit length, and the lengths they had; a row of zeros stays one."""
    # Constants for gradients: row = unit · length holds for any constant length.
    with torch.no_grad():
        largest = rows.abs().amax(dim=1, keepdim=True)
        shrunk = rows / torch.where(largest > 0, largest, 1.0)  # its squares are harmless
        length = shrunk.norm(dim=1, keepdim=True) * largest
        divisor = torch.where(length > 0, length, 1.0)
    return rows / divisor, length.squeeze(1)


def geometric_median(x: Tensor) -> Tensor:
    """Return argmin_m Σ ‖x_b − m‖, (rows, n) → (n,), to about 10⁻⁶ of the mean distance."""
    # Math: Weiszfeld's iteration, the mean of the rows weighted by 1 / ‖x_b − m‖. A row at m has no
    # weight; it holds m back by the share that its own subgradient takes of the step.
    # Source: Vardi and Zhang, PNAS 97 (2000), 1423.
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
