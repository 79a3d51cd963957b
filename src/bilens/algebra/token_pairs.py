"""Which two tokens together pull an output most: the exact maximum over all pairs and outputs."""

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError

BLOCK = 1 << 22  # numbers that one array holds at a time


@dataclass(frozen=True, eq=False)
class TokenPairs:
    """Pairs by falling pull; none that is left out pulls more."""

    pairs: Tensor  # (k, 2) token ids, first ≤ second
    outputs: Tensor  # (k,) ids
    pulls: Tensor  # (k,) logits, > 0
    read: float  # share of pairs whose outputs had to be formed; the bound ruled the others out


def strongest_pairs(
    tensor: BilinearTensor, embedding: Tensor, unembedding: Tensor, k: int = 10
) -> TokenPairs:
    """Return the pairs that pull one output most, each pair with its leading output alone.

    Math: pull(a, b → y) = U_y · [f(e_a + e_b) − f(e_a) − f(e_b)], f the quadratic part: what
        both tokens do together and neither does alone. A token with itself pulls U_y · f(e_a).
        A pair with ‖U‖ ‖Δ(a, b)‖ below the k-th pull so far is ruled out by Cauchy and Schwarz.
    Cost: tokens² · hidden · out for the vectors, and for `read` of the pairs tokens · out more;
        a few blocks of memory. The maximum is exact up to rounding, over every pair and output.

    Args:
        tensor: of the MLP, from the residual stream to the residual stream; or of a change.
        embedding: (tokens, in) what tokens put on its inputs.
        unembedding: (outputs, out) what reads its outputs.
        k: how many pairs.

    Raises: ShapeError if the sizes do not fit.
    """
    check_count("k", k, minimum=1)
    sizes = tensor.sizes
    tokens, width = check_float_tensor("embedding", embedding, num_axes=2)
    _, reads = check_float_tensor("unembedding", unembedding, num_axes=2)
    if (width, reads) != (sizes.d_in, sizes.d_out):
        raise ShapeError(
            f"embedding is {width} and unembedding {reads} wide, and the layer reads {sizes.d_in} "
            f"and writes {sizes.d_out}."
        )
    left, right = embedding @ tensor.left.T, embedding @ tensor.right.T  # (tokens, hidden)
    longest = float(unembedding.norm(dim=1).max())
    best = embedding.new_zeros(0)
    kept = embedding.new_zeros(0, 3, dtype=torch.long)
    formed = 0
    rows = max(1, BLOCK // sizes.d_hidden)
    for first in range(tokens):
        for start in range(first, tokens, rows):
            second = torch.arange(start, min(start + rows, tokens), device=embedding.device)
            both = left[first] * right[second] + left[second] * right[first]
            both[second == first] /= 2
            written = both @ tensor.down.T  # (rows, out)
            floor = float(best[-1]) if len(best) == k else 0.0
            chosen = written.norm(dim=1) * longest > floor
            if not bool(chosen.any()):
                continue
            formed += int(chosen.sum())
            pulls, outputs = (written[chosen] @ unembedding.T).max(dim=1)
            found = torch.stack([torch.full_like(outputs, first), second[chosen], outputs], dim=1)
            best, order = torch.cat([best, pulls]).sort(descending=True, stable=True)
            best, kept = best[:k], torch.cat([kept, found])[order[:k]]
    positive = best > 0
    share = formed / (tokens * (tokens + 1) / 2)
    return TokenPairs(kept[positive, :2], kept[positive, 2], best[positive], share)
