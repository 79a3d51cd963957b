"""Layers against the object or file that was given, run as a whole in the way its owner runs it."""

from collections.abc import Callable
from dataclasses import replace

import torch
from torch import Tensor

from bilens.base.errors import NumericalError
from bilens.nn.agreement import ROUNDED, ROWS, Agreement, agreement, normal_inputs

SCALES = (0.1, 1.0, 5.0, 20.0)  # a clamp or a branch shows at one of them
ROUNDINGS = 16  # how much more a source may round than its layers in the same dtype do
Run = Callable[[Tensor], Tensor]


def inputs_at_scales(width: int) -> Tensor:
    """Return normal inputs at several scales, (rows, width), with rows and entries that are 0."""
    x = torch.stack([scale * normal_inputs(width) for scale in SCALES])
    x[:, 0] = 0
    x[:, 1::4, ::2] = 0
    x[:, 2::4, 1::2] = 0
    return x.flatten(0, 1)


def inputs_that_reach(matrix: Tensor, shift: Tensor) -> Tensor:
    """Return inputs of which matrix · x + shift has several scales: of the size the model is for.

    They are rounded to float32, since a model may read no more, and followed by plain inputs.
    """
    x = (inputs_at_scales(len(matrix)) - shift) @ torch.linalg.pinv(matrix).T
    return torch.cat([x, inputs_at_scales(matrix.shape[1])]).float().double()


def compare_with_outputs(source: str, x: Tensor, made: Tensor, read: Run) -> Agreement:
    """Compare layers with what their source made of x; rows that overflow there are left out.

    Math: `read` runs in float64, and in the dtype of the source too, which shows what rounding does
        to these outputs. The worst of 16 rows at a time, so that large inputs hide no small ones.
    """
    found = []
    for given, rows in zip(x.split(ROWS), made.split(ROWS), strict=True):  # type: ignore[no-untyped-call]
        kept = rows.isfinite().all(dim=1)
        if bool(kept.any()):
            exact, rounded = read(given[kept]), read(given[kept].to(made.dtype))
            ours = agreement("", source, exact, rounded).relative_error
            allowed = ROUNDINGS * (ours + torch.finfo(made.dtype).eps / 2)
            check = agreement("output", source, rows[kept], exact, max(ROUNDED, allowed))
            found.append(check.required())
    if not found:
        raise NumericalError(f"{source}: none is a finite number, so that nothing is compared.")
    worst = max(found, key=lambda one: one.relative_error / one.tolerance)
    return replace(worst, rows=len(made))
