"""Inner products and norms of interaction matrices and slices of a tensor, from factors."""

import torch
from torch import Tensor

from bilens.algebra.gram.kernel import (
    FEWEST_ROWS,
    WORK_BYTES,
    Branches,
    block_size,
    blocks,
    kernel_row,
    nonzero,
    rows_within,
)
from bilens.base.checks import check_float_tensor
from bilens.base.errors import NonFiniteError, ShapeError


def output_gram(
    down: Tensor, left: Tensor, right: Tensor, down2: Tensor, left2: Tensor, right2: Tensor
) -> Tensor:
    """Return ⟨Q_i, Q'_j⟩ between all interaction matrices of two tensors, P H P'ᵀ in float64."""
    # Math: H = ½[(L L'ᵀ)∘(R R'ᵀ) + (L R'ᵀ)∘(R L'ᵀ)] (arXiv:2410.08417, §3.3, from factors).
    # O(hidden · hidden' · (in + out')) time, half of it where left2 is left and right2 is right;
    # O(out · out') memory and WORK_BYTES beside the factors, of which no float64 copy is made. (A
    # graph of gradients keeps every block.) Accurate to eps · Σ|P_h|‖l_h‖‖r_h‖ ·
    # Σ|P'_h|‖l'_h‖‖r'_h‖: where terms cancel, so that a matrix is far smaller than its terms, a
    # squared norm from here is rounding.
    first = Branches.from_factors(left, right)
    if left2 is not left or right2 is not right:
        return _kernel_between(down, first, down2, Branches.from_factors(left2, right2))
    if down2 is down:
        return own_gram(down, first)
    both = own_gram(torch.cat([down, down2]), first)  # so that H is met once
    return both[: len(down), len(down) :]


def own_gram(down: Tensor, branches: Branches) -> Tensor:
    """Return P H Pᵀ, (out, out) float64, of one tensor; see `output_gram`."""
    half = _kernel_between(down, branches, down, branches)
    return half + half.T


def _kernel_between(down: Tensor, first: Branches, down2: Tensor, second: Branches) -> Tensor:
    """Return P H P'ᵀ, (out, out'), over the blocks that `kernel_row` yields."""
    d_in = first.left.shape[1]
    size = block_size(len(first.left), 6 * d_in + 3 * max(len(down), len(down2)))
    total = first.left_length.new_zeros(len(down), len(down2))
    for rows in blocks(len(first.left), size):
        reached = total.new_zeros(rows.stop - rows.start, len(down2))
        for columns, kernel in kernel_row(first, second, rows, size):
            reached += kernel @ second.weigh(down2, columns).T
        total += first.weigh(down, rows) @ reached.to(first.dtype)
    return total


def paired_inner(
    weights: Tensor, left: Tensor, right: Tensor, weights2: Tensor, left2: Tensor, right2: Tensor
) -> Tensor:
    """Return ⟨Q_i, Q'_i⟩ for rows of weights paired one to one: the diagonal of `output_gram`."""
    first, second = Branches.from_factors(left, right), Branches.from_factors(left2, right2)
    size = rows_within(6 * left.shape[1])
    total = first.left_length.new_zeros(len(weights))
    for rows in blocks(len(left), size):
        for columns, kernel in kernel_row(first, second, rows, size):
            for chosen in blocks(len(weights), size):
                reached = first.weigh(weights[chosen], rows) @ kernel
                total[chosen] += (reached * second.weigh(weights2[chosen], columns)).sum(dim=1)
    return total


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


def input_gram(down: Tensor, left: Tensor, right: Tensor, rows: Tensor | None = None) -> Tensor:
    """Return V (Σ_c Q_c²) Vᵀ, the Gram matrix of the tensor's slices along input directions."""
    return slices_gram(down, Branches.from_factors(left, right), rows)


def slices_gram(down: Tensor, branches: Branches, rows: Tensor | None = None) -> Tensor:
    """Return `input_gram` in float64, with products in the dtype of the branches."""
    # Math: Σ_c Q_c² = ¼[Lᵀ(Γ∘RRᵀ)L + Lᵀ(Γ∘RLᵀ)R + Rᵀ(Γ∘LRᵀ)L + Rᵀ(Γ∘LLᵀ)R] with Γ = PᵀP; with
    # directions V the outer L and R are L Vᵀ and R Vᵀ. Its eigenvectors are the shared input
    # directions of all outputs. O(hidden² · (in + num + out)) time, O(num² + hidden · num) memory
    # and WORK_BYTES. Accuracy as `output_gram`, in the lengths of the rows of L Vᵀ and R Vᵀ.
    hidden, d_in = branches.left.shape
    num = d_in if rows is None else len(rows)
    size = block_size(hidden, 4 * d_in + 6 * num + 2 * len(down))
    total = branches.left_length.new_zeros(num, num)
    turned = None if rows is None else rows.to(branches.dtype).T

    def outer(inner: Tensor) -> Tensor:
        return inner if turned is None else inner @ turned

    for mine in blocks(hidden, size):
        left1, right1 = branches.unit_rows_of(mine)
        weights = branches.weigh(down, mine).T
        reached = total.new_zeros(2, mine.stop - mine.start, num)  # what follows Lᵀ, and Rᵀ
        for theirs in blocks(hidden, size, start=mine.start):
            left2, right2 = branches.unit_rows_of(theirs)
            outer_left, outer_right = outer(left2), outer(right2)
            shared = weights @ branches.weigh(down, theirs)
            shared = shared / (8 if theirs == mine else 4)  # the transposes below double it
            reached[0] += (shared * (right1 @ right2.T)) @ outer_left
            reached[0] += (shared * (right1 @ left2.T)) @ outer_right
            reached[1] += (shared * (left1 @ right2.T)) @ outer_left
            reached[1] += (shared * (left1 @ left2.T)) @ outer_right
        after_left, after_right = reached.to(branches.dtype)
        total += outer(left1).T @ after_left + outer(right1).T @ after_right
    return total + total.T


EPS = torch.finfo(torch.float64).eps
UNIT = 2.0**-24  # u of float32
PIECE = 128  # terms of a float32 product of rows: its error grows with them, not with the width


def squared_norms(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return ‖Q_w‖_F² of Q_w = ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ), for every row w of `weights`."""
    # Math: the diagonal of W H Wᵀ without the matrix, H as in `output_gram`; O(hidden² · (in +
    # num)) time, O(num) memory and WORK_BYTES. Within `squared_norm_rounding` of the exact value.
    check_weighted(weights, left, right)
    branches = Branches.from_factors(left, right)
    size_before = sizes_before_cancelling(weights, branches)
    size = block_size(len(left), 6 * left.shape[1])
    share = torch.zeros_like(size_before)  # of its square: from 0 to 1, whatever the scale
    for rows in blocks(len(left), size):
        for columns, kernel in kernel_row(branches, branches, rows, size):
            for chosen in blocks(len(weights), size):
                scale = nonzero(size_before[chosen])[:, None]
                reached = (branches.weigh(weights[chosen], rows) / scale) @ kernel
                weighed = branches.weigh(weights[chosen], columns) / scale
                share[chosen] += 2 * (reached * weighed).sum(dim=1)
    return no_negative(share) * size_before.square()


def squared_norm_rounding(weights: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """Return how far `squared_norms` can be from the exact ‖Q_w‖_F² by rounding, (num,) float64."""
    # Math: eps · (in + hidden + 16) · (Σ_h |w_h|‖l_h‖‖r_h‖)². With unit rows a product of two rows
    # is off by at most (in + 2) u, u = eps/2, so an entry of H by (2 in + 7) u; the two sums over h
    # add 2 hidden · u, and moving the lengths into the weights 8 u. The rest of the 16 covers terms
    # of second order and the rounding of this bound. It holds for any order of summation, and for
    # the values in the arguments as they stand, barring underflow. Source: N. J. Higham, Accuracy
    # and Stability of Numerical Algorithms, §3.1.
    check_weighted(weights, left, right)
    hidden, d_in = left.shape
    size_before = sizes_before_cancelling(weights, Branches.from_factors(left, right))
    return EPS * (d_in + hidden + 16) * size_before.square()


@torch.no_grad()
def squared_norms_in_float32(
    weights: Tensor, left: Tensor, right: Tensor
) -> tuple[Tensor, Tensor] | None:
    """Return ‖Q_w‖_F² by float32 products, and how far each can be off: (num,) float64 each."""
    # Takes float32 rows of length at most 1 and |weights| at most 1. None where a product of rows
    # is less exact than float32 promises (TF32, bfloat16: an option of torch).
    # The proof of the bound; u = 2⁻²⁴, m = PIECE + pieces, b the rows of a block; Higham, §3.1.
    # A product of two rows, summed piece by piece, is off by at most each = (m + 2) u. Let S be
    # the sum of the sizes of the four computed products of units h and h'. Then 2H = AB + CD
    # is off by (each + 2u) S + 2 each² at most: |AB − A'B'| ≤ each (|A| + |B|) + each², and the
    # rounding of two products and a sum is 3u (|AB| + |CD|) ≤ 2u S. Weights rounded to float32
    # and the two sums over b units lose (2b + 4) u Σ|w||w'||2H|. Both are sums Σ|w_h||w_h'| M_hh'
    # over a symmetric M ≥ 0, which 2|w||w'| ≤ w² + w'² bounds by Σ_h w_h² Σ_h' M_hh'. A number
    # below 2⁻¹²⁶ may be flushed to zero in each step. The factor 1.01 covers terms of higher
    # order, the sums of the bound, and rows longer than 1 by rounding.
    (num, hidden), d_in = weights.shape, left.shape[1]
    size = min(512, hidden, max(FEWEST_ROWS, WORK_BYTES // (32 * d_in)))
    pieces = list(blocks(d_in, PIECE))
    each, summing = (PIECE + len(pieces) + 2) * UNIT, (2 * size + 4) * UNIT
    total, bound = weights.new_zeros(num), weights.new_zeros(hidden)
    for mine in blocks(hidden, size):
        here = torch.cat([left[mine], right[mine]])
        for theirs in blocks(hidden, size, start=mine.start):
            there = here if theirs == mine else torch.cat([left[theirs], right[theirs]])
            products = here[:, pieces[0]] @ there[:, pieces[0]].T
            part = torch.empty_like(products)
            for piece in pieces[1:]:
                products += torch.mm(here[:, piece], there[:, piece].T, out=part)
            half = 0.5 if mine == theirs else 1.0
            if mine == theirs:  # some rows, in full
                some = slice(None, None, max(len(here) // 8, 1))
                exact = here[some].double() @ here.double().T
                if not bool(((products[some] - exact).abs() <= each).all()):
                    return None
            a, b = mine.stop - mine.start, theirs.stop - theirs.start
            sizes = torch.abs(products, out=part)
            bound[mine] += half * (each / 2 + UNIT) * sizes.sum(dim=1).view(2, a).sum(dim=0)
            bound[theirs] += half * (each / 2 + UNIT) * sizes.sum(dim=0).view(2, b).sum(dim=0)
            kernel = products[:a, :b].mul_(products[a:, b:])
            kernel.addcmul_(products[:a, b:], products[a:, :b])
            sizes = torch.abs(kernel, out=part[:a, :b])
            bound[mine] += half * summing / 2 * sizes.sum(dim=1)
            bound[theirs] += half * summing / 2 * sizes.sum(dim=0)
            for some in blocks(num, 2048):
                reached = weights[some, mine].float() @ kernel
                share = torch.linalg.vecdot(reached, weights[some, theirs].float())
                total[some] += half * share.double()
    sizes_before = weights.abs().sum(dim=1)
    flushed = hidden**2 * (4.0 * d_in + 2 * size + 8) * 2.0**-126
    error = weights.square() @ bound + (each * sizes_before).square()
    return no_negative(total), 1.01 * error + flushed


def sizes_before_cancelling(weights: Tensor, branches: Branches) -> Tensor:
    """Return Σ_h |w_h|‖l_h‖‖r_h‖ for every row of weights, (num,): ‖Q_w‖_F before cancelling."""
    with torch.no_grad():
        parts = [
            branches.weigh(weights, rows).abs().sum(dim=1)
            for rows in blocks(weights.shape[1], rows_within(3 * len(weights)))
        ]
        sizes = torch.stack(parts).sum(dim=0)
    if not bool(torch.isfinite(sizes).all()):
        raise NonFiniteError(
            f"Σ|weight|‖left‖‖right‖ of row {int((~torch.isfinite(sizes)).int().argmax())} of "
            f"weights is beyond float64: rescale the factors."
        )
    return sizes


def no_negative(value: Tensor) -> Tensor:
    """Return a squared norm without the rounding error that can push a zero below zero."""
    return torch.clamp(value, min=0.0)


def check_weighted(weights: Tensor, left: Tensor, right: Tensor) -> None:
    shape = check_float_tensor("weights", weights, num_axes=2)
    left_shape = check_float_tensor("left", left, num_axes=2)
    right_shape = check_float_tensor("right", right, num_axes=2)
    if left_shape != right_shape or shape[1] != left_shape[0] or 0 in (*shape, *left_shape):
        raise ShapeError(
            f"weights {shape}, left {left_shape} and right {right_shape} do not fit: expected "
            "(num, hidden) and twice (hidden, in), no axis empty."
        )
