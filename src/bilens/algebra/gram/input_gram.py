"""The Gram matrix of a tensor's slices along input directions."""

from __future__ import annotations

from torch import Tensor

from bilens.algebra.gram.blocks import block_size, blocks
from bilens.algebra.gram.kernel import Branches


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
