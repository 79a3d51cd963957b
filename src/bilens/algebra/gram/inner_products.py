"""Inner products of interaction matrices and of the slices of a tensor, from factors."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import block_size, blocks, rows_within
from bilens.algebra.gram.kernel import Branches, kernel_row


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
    """Return V (Σ_c Q_c²) Vᵀ, the Gram matrix of the tensor's slices along input directions.

    Math: Σ_c Q_c² = ¼[Lᵀ(Γ∘RRᵀ)L + Lᵀ(Γ∘RLᵀ)R + Rᵀ(Γ∘LRᵀ)L + Rᵀ(Γ∘LLᵀ)R] with Γ = PᵀP; with
        directions V the outer L and R are L Vᵀ and R Vᵀ. Its eigenvectors are the shared input
        directions of all outputs.
    Cost: O(hidden² · (in + num + out)) time, O(num² + hidden · num) memory and WORK_BYTES beside
        the factors, of which no float64 copy is made.
    Accuracy: as `output_gram`, in the lengths of the rows of L Vᵀ and R Vᵀ.
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
