"""Squared norms of interaction matrices, and a bound on their rounding."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import block_size, blocks, rows_within
from bilens.algebra.gram.kernel import Branches, kernel_row, nonzero
from bilens.base.checks import check_float_tensor
from bilens.base.errors import NonFiniteError, ShapeError

EPS = torch.finfo(torch.float64).eps


def squared_norms(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return ‖Q_w‖_F² of Q_w = ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ), for every row w of `weights`.

    Math: the diagonal of W H Wᵀ, without the matrix; see `output_gram` for H.
    Cost: O(hidden² · (in + num)) time, O(num) memory and WORK_BYTES beside the arguments, of
        which no float64 copy is made.
    Accuracy: within `squared_norm_rounding` of the exact value.

    Args:
        weights: W, (num, hidden); downᵀu in each row, for output directions u.
        left: L, (hidden, in).
        right: R, (hidden, in).

    Returns:
        (num,) float64, none below zero.

    Raises:
        ShapeError: If the three do not fit together, or an axis is empty.
        NonFiniteError: If one of them holds NaN or infinity, or their products overflow.
    """
    check_weighted(weights, left, right)
    branches = Branches.of(left, right)
    mass = masses(weights, branches)
    size = block_size(len(left), 6 * left.shape[1])
    share = torch.zeros_like(mass)  # of mass²: between 0 and 1, whatever the scale of the factors
    for rows in blocks(len(left), size):
        for columns, kernel in kernel_row(branches, branches, rows, size):
            for chosen in blocks(len(weights), size):
                scale = nonzero(mass[chosen])[:, None]
                reached = (branches.weigh(weights[chosen], rows) / scale) @ kernel
                weighed = branches.weigh(weights[chosen], columns) / scale
                share[chosen] += 2 * (reached * weighed).sum(dim=1)
    return no_negative(share) * mass.square()


def squared_norm_rounding(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return how far `squared_norms` can be from the exact ‖Q_w‖_F² by rounding, (num,) float64.

    Math: eps · (in + hidden + 16) · (Σ_h |w_h|‖l_h‖‖r_h‖)². With unit rows a product of two rows
        is off by at most (in + 2) u, u = eps/2, so an entry of H by (2 in + 7) u; the two sums
        over h add 2 hidden · u, and moving the lengths into the weights 8 u. The rest of the 16
        covers terms of second order and the rounding of this bound. It holds for any order of
        summation, and for the values in the arguments as they stand, barring underflow.
    Cost: O(hidden · (in + num)).

    Args:
        weights: (num, hidden).
        left: (hidden, in).
        right: (hidden, in).

    Raises:
        ShapeError: If the three do not fit together, or an axis is empty.
        NonFiniteError: If one of them holds NaN or infinity, or their products overflow.

    Source: N. J. Higham, Accuracy and Stability of Numerical Algorithms, §3.1.
    """
    check_weighted(weights, left, right)
    hidden, d_in = left.shape
    return EPS * (d_in + hidden + 16) * masses(weights, Branches.of(left, right)).square()


def masses(weights: Tensor, branches: Branches) -> Tensor:
    """Return Σ_h |w_h|‖l_h‖‖r_h‖ for every row of weights, (num,): ‖Q_w‖_F before cancelling.

    Raises:
        NonFiniteError: If one overflows.
    """
    with torch.no_grad():
        parts = [
            branches.weigh(weights, rows).abs().sum(dim=1)
            for rows in blocks(weights.shape[1], rows_within(3 * len(weights)))
        ]
        mass = torch.stack(parts).sum(dim=0)
    if not bool(torch.isfinite(mass).all()):
        raise NonFiniteError(
            f"Σ|weight|‖left‖‖right‖ of row {int((~torch.isfinite(mass)).int().argmax())} of "
            f"weights is beyond float64: rescale the factors."
        )
    return mass


def no_negative(value: Tensor) -> Tensor:
    """Return a squared norm without the rounding error that can push a zero below zero."""
    return torch.clamp(value, min=0.0)


def check_weighted(weights: Tensor, left: Tensor, right: Tensor) -> None:
    """Refuse weights and branches that do not fit together; their dtypes may differ.

    Raises:
        ShapeError: Wrong number of axes, sizes that differ, an empty axis.
        NonFiniteError: If one holds NaN or infinity.
    """
    shape = check_float_tensor("weights", weights, num_axes=2)
    left_shape = check_float_tensor("left", left, num_axes=2)
    right_shape = check_float_tensor("right", right, num_axes=2)
    if left_shape != right_shape or shape[1] != left_shape[0] or 0 in (*shape, *left_shape):
        raise ShapeError(
            f"weights {shape}, left {left_shape} and right {right_shape} do not fit: expected "
            "(num, hidden) and twice (hidden, in), no axis empty."
        )
