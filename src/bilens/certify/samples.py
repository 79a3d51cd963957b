"""What a certificate of given inputs starts from: checked rows, margins, and their rounding."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_dense_tensor
from bilens.base.errors import ShapeError, UsageError
from bilens.certify.crossing import margins
from bilens.certify.secular import EPS


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs with their labels and margins, in float64.

    Attributes:
        x: (rows, in); rows that are not finite hold zeros.
        label: (rows,), the output that should win.
        usable: (rows,), False where the input or an output of the map is not finite.
        margins: (rows, out), f_label − f_j; inf for the label itself.
        errors: (rows, out), what the rounding of the margins is at most.
        lengths: (rows,), ‖x‖, rounded up.
    """

    x: Tensor
    label: Tensor
    usable: Tensor
    margins: Tensor
    errors: Tensor
    lengths: Tensor

    @property
    def lost(self) -> Tensor:
        """(rows,), another output is certainly larger at x."""
        return self.usable & (self.margins < -self.errors).any(dim=1)

    @property
    def stays(self) -> Tensor:
        """(rows,), lost or tied: the label does not certainly win at x."""
        return self.usable & (self.margins <= self.errors).any(dim=1)


def samples_of(f: QuadraticMap, x: Tensor, label: Tensor | Sequence[int]) -> Samples:
    """Return checked inputs of a float64 map; a row that is not finite is flagged, not refused.

    Cost: O(rows · hidden · (in + out)).

    Raises:
        ShapeError: If x is not a floating tensor (rows, in), or label not (rows,) integers.
        UsageError: If a label is not an output of the map, or the map has a single output.
    """
    shape = check_dense_tensor("x", x, num_axes=2)
    outputs, _, width = f.sizes
    if shape[1] != width:
        raise ShapeError(f"x has shape {shape}; expected (rows, {width}), one input a row.")
    if outputs < 2:
        raise UsageError("the map has one output: a certificate needs a rival.")
    label = checked_labels(label, shape[0], outputs)
    x = x.detach().double()
    finite = x.isfinite().all(dim=1)
    x = torch.where(finite[:, None], x, 0.0)
    lengths = x.norm(dim=1) * (1 + (width + 4) * EPS)
    found = margins(f, x, label)
    errors = rounding(f, x, lengths)
    errors = errors + errors.gather(1, label[:, None])
    own = torch.zeros_like(found, dtype=torch.bool).scatter(1, label[:, None], True)
    usable = finite & ((found.isfinite() & errors.isfinite()) | own).all(dim=1)
    found = torch.where(usable[:, None] | own, found, 1.0)
    return Samples(x, label, usable, found, errors.masked_fill(~usable[:, None], 0.0), lengths)


def checked_labels(label: Tensor | Sequence[int], rows: int, outputs: int) -> Tensor:
    """Return int64 labels, one a row, each an output of the map."""
    labels = label if isinstance(label, Tensor) else torch.as_tensor(label)
    if labels.numel() == 0:
        labels = labels.long()
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ShapeError(f"label has dtype {labels.dtype}; integers were expected: label.long().")
    if tuple(labels.shape) != (rows,):
        raise ShapeError(
            f"label has shape {tuple(labels.shape)}; expected ({rows},), one output a row of x."
        )
    wrong = ((labels < 0) | (labels >= outputs)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise UsageError(
            f"label[{row}] is {int(labels[row])}; the map has outputs 0 to {outputs - 1}."
        )
    return labels.detach().long()


def rounding(f: QuadraticMap, x: Tensor, lengths: Tensor) -> Tensor:
    """Return bounds on |computed f_c(x) − f_c(x)|, (rows, out).

    Math: a sum of l products, in any order, errs by at most l·eps/2 of the sum of their sizes; so
        left_h·x errs by (in + 8)·eps/2·‖left_h‖‖x‖, and an output by what that does to the
        products.
    """
    down, left, right = f.tensor.down.abs(), f.tensor.left, f.tensor.right
    _, hidden, width = f.sizes
    inner = (width + 8) * EPS * lengths[:, None]
    left_error, right_error = inner * left.norm(dim=1), inner * right.norm(dim=1)
    left_size, right_size = (x @ left.T).abs() + left_error, (x @ right.T).abs() + right_error
    products = left_error * right_size + left_size * right_error
    products = products + (hidden + 8) * EPS * left_size * right_size
    bound: Tensor = products @ down.T
    if f.linear is not None:
        bound = bound + (width + 16) * EPS * f.linear.norm(dim=1) * lengths[:, None]
    return bound if f.constant is None else bound + 16 * EPS * f.constant.abs()
