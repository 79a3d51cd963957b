"""Inner products of bilinear tensors, from their factors, a block of hidden units at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.unit_rows import unit_rows
from bilens.checks import check_float_tensor
from bilens.errors import NonFiniteError, ShapeError

WORK_BYTES = 128 * 2**20  # what the blocks of a call may take, beside its factors and its result
FEWEST_ROWS = 16  # smaller blocks would spend their time on calls; only in > 200,000 meets it
ROWS_OF_BLOCKS = 8  # 8 · 9 / 2 of 64 blocks are on or above the diagonal: 53 % of the products
EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class Branches:
    """The two branches of a layer, read as float64 rows of unit length, a block at a time.

    Unit rows keep products of rows from overflowing and vanishing; a row of zeros stays one.

    Attributes:
        left: (hidden, in), any floating dtype.
        right: (hidden, in).
        left_length: (hidden,) float64, constants for gradients (see `unit_rows`).
        right_length: (hidden,) float64.
    """

    left: Tensor
    right: Tensor
    left_length: Tensor
    right_length: Tensor

    @classmethod
    def of(cls, left: Tensor, right: Tensor) -> Branches:
        """Measure the rows of both branches, O(hidden · in)."""
        return cls(left, right, row_lengths(left), row_lengths(right))

    def read(self, rows: slice) -> tuple[Tensor, Tensor]:
        """Return left and right of some hidden units, (block, in) each."""
        return (
            self.left[rows].double() / nonzero(self.left_length[rows])[:, None],
            self.right[rows].double() / nonzero(self.right_length[rows])[:, None],
        )

    def weigh(self, weights: Tensor, rows: slice) -> Tensor:
        """Return the weights of some hidden units, with the lengths moved in, (num, block)."""
        return weights[:, rows].double() * self.left_length[rows] * self.right_length[rows]


def kernel_row(
    first: Branches, second: Branches, rows: slice, size: int
) -> Iterator[tuple[slice, Tensor]]:
    """Yield the columns and values of H = ½[(L L'ᵀ)∘(R R'ᵀ) + (L R'ᵀ)∘(R L'ᵀ)] in some rows.

    H of a layer with itself (`second is first`) is symmetric: only the blocks on and above the
    diagonal come, those on it halved, so that all of them and their transposes add up to H.

    Cost: 8 · hidden · hidden' · in operations for all rows, half of it for a layer with itself.
    """
    itself = second is first
    left, right = first.read(rows)
    for columns in blocks(len(second.left), size, start=rows.start if itself else 0):
        diagonal = itself and columns == rows
        left2, right2 = (left, right) if diagonal else second.read(columns)
        mixed = left @ right2.T
        crossed = mixed * (mixed.T if diagonal else right @ left2.T)
        both = torch.addcmul(crossed, left @ left2.T, right @ right2.T)
        yield columns, both / (4 if diagonal else 2)


def output_gram(
    down: Tensor, left: Tensor, right: Tensor, down2: Tensor, left2: Tensor, right2: Tensor
) -> Tensor:
    """Return all inner products ⟨Q_i, Q'_j⟩ between the interaction matrices of two tensors.

    Math: P H P'ᵀ with H = ½[(L L'ᵀ)∘(R R'ᵀ) + (L R'ᵀ)∘(R L'ᵀ)], in float64.
    Cost: O(hidden · hidden' · (in + out')) time, half of it where left2 is left and right2 is
        right; O(out · out') memory and WORK_BYTES beside the factors, of which no float64 copy
        is made. (A graph of gradients keeps every block.)
    Accuracy: eps · Σ|P_h|‖l_h‖‖r_h‖ · Σ|P'_h|‖l'_h‖‖r'_h‖ absolute. Where terms cancel, so that a
        matrix is far smaller than its terms, a squared norm taken from here is rounding.

    Args:
        down: P, (out, hidden).
        left: L, (hidden, in).
        right: R, (hidden, in).
        down2: P', (out', hidden').
        left2: L', (hidden', in).
        right2: R', (hidden', in).

    Returns:
        (out, out') float64.

    Source: arXiv:2410.08417, §3.3 (the Gram matrix of the flattened tensor), from factors.
    """
    first = Branches.of(left, right)
    if left2 is not left or right2 is not right:
        return _kernel_between(down, first, down2, Branches.of(left2, right2))
    weights = down if down2 is down else torch.cat([down, down2])  # both, so that H is met once
    half = _kernel_between(weights, first, weights, first)
    both = half + half.T
    return both if down2 is down else both[: len(down), len(down) :]


def _kernel_between(down: Tensor, first: Branches, down2: Tensor, second: Branches) -> Tensor:
    """Return P H P'ᵀ, (out, out'), over the blocks that `kernel_row` yields."""
    d_in = first.left.shape[1]
    size = block_size(len(first.left), 6 * d_in + 3 * max(len(down), len(down2)))
    total = first.left_length.new_zeros(len(down), len(down2))
    for rows in blocks(len(first.left), size):
        reached = total.new_zeros(rows.stop - rows.start, len(down2))
        for columns, kernel in kernel_row(first, second, rows, size):
            reached += kernel @ second.weigh(down2, columns).T
        total += first.weigh(down, rows) @ reached
    return total


def paired_inner(
    weights: Tensor, left: Tensor, right: Tensor, weights2: Tensor, left2: Tensor, right2: Tensor
) -> Tensor:
    """Return ⟨Q_i, Q'_i⟩ for the rows of weights paired one to one: the diagonal of `output_gram`.

    Cost: O(hidden · hidden' · (in + num)) time, O(num) memory and WORK_BYTES beside the
        arguments, of which no float64 copy is made.
    Accuracy: as `output_gram`.

    Args:
        weights: (num, hidden).
        left: (hidden, in).
        right: (hidden, in).
        weights2: (num, hidden').
        left2: (hidden', in).
        right2: (hidden', in).

    Returns:
        (num,) float64.
    """
    first, second = Branches.of(left, right), Branches.of(left2, right2)
    size = rows_within(6 * left.shape[1])
    total = first.left_length.new_zeros(len(weights))
    for rows in blocks(len(left), size):
        for columns, kernel in kernel_row(first, second, rows, size):
            for chosen in blocks(len(weights), size):
                reached = first.weigh(weights[chosen], rows) @ kernel
                total[chosen] += (reached * second.weigh(weights2[chosen], columns)).sum(dim=1)
    return total


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


def input_gram(down: Tensor, left: Tensor, right: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return V (Σ_c Q_c²) Vᵀ, the Gram matrix of the tensor's slices along input directions.

    Math: Σ_c Q_c² = ¼[Lᵀ(Γ∘RRᵀ)L + Lᵀ(Γ∘RLᵀ)R + Rᵀ(Γ∘LRᵀ)L + Rᵀ(Γ∘LLᵀ)R] with Γ = PᵀP; with
        directions V the outer L and R are L Vᵀ and R Vᵀ. Its eigenvectors are the shared input
        directions of all outputs.
    Cost: O(hidden² · (in + num + out)) time, O(num² + hidden · num) memory and WORK_BYTES beside
        the factors, of which no float64 copy is made.
    Accuracy: as `output_gram`, in the lengths of the rows of L Vᵀ and R Vᵀ.

    Args:
        down: P, (out, hidden).
        left: L, (hidden, in).
        right: R, (hidden, in).
        rows: V, (num, in), input directions; None for all axes of the input, V = I.

    Returns:
        (in, in) or (num, num) float64, symmetric.
    """
    branches = Branches.of(left, right)
    num = left.shape[1] if rows is None else len(rows)
    size = block_size(len(left), 4 * left.shape[1] + 6 * num + 2 * len(down))
    total = branches.left_length.new_zeros(num, num)

    def outer(part: slice) -> tuple[Tensor, Tensor]:
        inner = branches.read(part)
        return inner if rows is None else (inner[0] @ rows.double().T, inner[1] @ rows.double().T)

    for mine in blocks(len(left), size):
        left1, right1 = branches.read(mine)
        reached = total.new_zeros(2, mine.stop - mine.start, num)  # what follows Lᵀ, and Rᵀ
        for theirs in blocks(len(left), size, start=mine.start):
            left2, right2 = branches.read(theirs)
            outer_left, outer_right = outer(theirs)
            shared = branches.weigh(down, mine).T @ branches.weigh(down, theirs)
            shared = shared / (8 if theirs == mine else 4)  # the transposes below double it
            reached[0] += (shared * (right1 @ right2.T)) @ outer_left
            reached[0] += (shared * (right1 @ left2.T)) @ outer_right
            reached[1] += (shared * (left1 @ right2.T)) @ outer_left
            reached[1] += (shared * (left1 @ left2.T)) @ outer_right
        outer_left, outer_right = outer(mine)
        total += outer_left.T @ reached[0] + outer_right.T @ reached[1]
    return total + total.T


def unit_factors(down: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return the same tensor in float64, with the lengths of all rows moved into `down`."""
    left, left_length = unit_rows(left.double())
    right, right_length = unit_rows(right.double())
    return down.double() * left_length * right_length, left, right


def outputs_traces(down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return tr Q_c = Σ_h down[c, h] (left_h · right_h), (out,) float64, in O(hidden · in)."""
    size = rows_within(3 * left.shape[1] + len(down))
    return sum(
        (
            down[:, rows].double() @ (left[rows].double() * right[rows].double()).sum(dim=1)
            for rows in blocks(len(left), size)
        ),
        start=torch.zeros(len(down), dtype=torch.float64, device=down.device),
    )


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


def row_lengths(rows: Tensor) -> Tensor:
    """Return the length of every row, (num,) float64, a constant for gradients."""
    with torch.no_grad():
        size = rows_within(4 * rows.shape[1])
        parts = [unit_rows(rows[part].double())[1] for part in blocks(len(rows), size)]
        return torch.cat(parts)


def nonzero(lengths: Tensor) -> Tensor:
    """Return lengths that one can divide by: a row of zeros is left as it is."""
    return torch.where(lengths > 0, lengths, 1.0)


def rows_within(width: int) -> int:
    """Return how many rows r fit: r · width and 8 · r² float64 numbers within WORK_BYTES."""
    numbers = WORK_BYTES / 8
    return max(FEWEST_ROWS, int(2 * numbers / (width + (width**2 + 32 * numbers) ** 0.5)))


def block_size(hidden: int, width: int) -> int:
    """Return how many hidden units make a block: what fits, and few enough to gain by symmetry."""
    return min(rows_within(width), max(FEWEST_ROWS, -(-hidden // ROWS_OF_BLOCKS)))


def blocks(length: int, size: int, start: int = 0) -> Iterator[slice]:
    """Yield slices of at most `size` that cover start … length in order."""
    for first in range(start, length, size):
        yield slice(first, min(first + size, length))
