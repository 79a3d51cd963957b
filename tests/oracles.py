"""The slow, obvious version of everything factored, written from the definitions.

It imports torch and nothing of ours, so that the two cannot share a mistake.
"""

from itertools import combinations

import torch
from torch import Tensor


def dense_tensor(down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """B[o, i, j] = ½ Σ_h down[o, h] (left[h, i] right[h, j] + right[h, i] left[h, j])."""
    straight = torch.einsum("oh,hi,hj->oij", down, left, right)
    crossed = torch.einsum("oh,hi,hj->oij", down, right, left)
    return (straight + crossed) / 2


def dense_interaction(down: Tensor, left: Tensor, right: Tensor, u: Tensor) -> Tensor:
    """Q[i, j] = Σ_o u[o] B[o, i, j]."""
    return torch.einsum("o,oij->ij", u, dense_tensor(down, left, right))


def dense_weighted(left: Tensor, right: Tensor, weight: Tensor) -> Tensor:
    """Q = ½ Σ_h weight_h (left_h right_hᵀ + right_h left_hᵀ), one outer product at a time."""
    total = left.new_zeros(left.shape[1], left.shape[1])
    for row_left, row_right, size in zip(left, right, weight, strict=True):
        outer = torch.outer(row_left, row_right)
        total = total + size * (outer + outer.T) / 2
    return total


def evaluate_form(q: Tensor, linear: Tensor, constant: Tensor, x: Tensor) -> Tensor:
    """q(x) = Σ_ij Q[i, j] x_i x_j + Σ_i linear_i x_i + constant, one input at a time."""
    flat = x.reshape(-1, x.shape[-1])
    values = [torch.einsum("i,ij,j->", row, q, row) + linear.dot(row) + constant for row in flat]
    return torch.stack(values).reshape(x.shape[:-1])


def evaluate_map(
    down: Tensor,
    left: Tensor,
    right: Tensor,
    linear: Tensor | None,
    constant: Tensor | None,
    x: Tensor,
) -> Tensor:
    """f(x)_o = Σ_ij B[o, i, j] x_i x_j + Σ_i linear[o, i] x_i + constant_o."""
    y = torch.einsum("oij,...i,...j->...o", dense_tensor(down, left, right), x, x)
    if linear is not None:
        y = y + torch.einsum("oi,...i->...o", linear, x)
    return y if constant is None else y + constant


def layer(
    x: Tensor,
    left: Tensor,
    right: Tensor,
    left_bias: Tensor | None = None,
    right_bias: Tensor | None = None,
    gate: str | None = None,
) -> Tensor:
    """gate(left x + b) ∘ (right x + c), with the gates from their formulas."""
    a, b = x @ left.T, x @ right.T
    a = a if left_bias is None else a + left_bias
    b = b if right_bias is None else b + right_bias
    if gate == "relu":
        a = torch.where(a > 0, a, torch.zeros_like(a))
    elif gate == "gelu":
        a = a * (1 + torch.erf(a / 2**0.5)) / 2
    elif gate == "silu":
        a = a / (1 + torch.exp(-a))
    return a * b


def norm(dense: Tensor) -> Tensor:
    """Frobenius norm: the root of the sum of all squared entries."""
    return (dense * dense).sum().sqrt()


def inner(dense: Tensor, other: Tensor) -> Tensor:
    """Sum of the products of all entries."""
    return (dense * other).sum()


def traces(dense: Tensor) -> Tensor:
    """Sum of the diagonal of each matrix, (out, in, in) → (out,)."""
    return torch.stack([sum(matrix[i, i] for i in range(len(matrix))) for matrix in dense])


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """(Σ|λ|)² / Σλ² of one spectrum, 0 for zeros."""
    mass = (eigenvalues**2).sum()
    return eigenvalues.abs().sum() ** 2 / mass if mass > 0 else mass


def chosen(eigenvalues: Tensor, k: int, which: str) -> list[float]:
    """The k eigenvalues that `which` names, by falling absolute value."""
    values = sorted(eigenvalues.tolist())
    if which == "magnitude":
        picked = sorted(values, key=abs)[len(values) - k :]
    elif which == "largest":
        picked = values[len(values) - k :]
    elif which == "smallest":
        picked = values[:k]
    else:  # both: half from each end, the extra one from the upper end
        picked = values[: k // 2] + values[len(values) - (k - k // 2) :]
    return sorted(picked, key=abs, reverse=True)


def best_truncation(dense: Tensor, k: int) -> Tensor:
    """The best approximation of rank k, from the singular value decomposition (Eckart–Young)."""
    u, sizes, v = torch.linalg.svd(dense)
    return u[:, :k] @ torch.diag(sizes[:k]) @ v[:k]


def input_gram(dense: Tensor) -> Tensor:
    """Σ_c Q_c Q_c, (out, in, in) → (in, in), one output at a time."""
    return sum((q @ q for q in dense), torch.zeros_like(dense[0]))


def feature_interactions(
    down: Tensor, left: Tensor, right: Tensor, u: Tensor, dictionary: Tensor
) -> Tensor:
    """S[m, n] = ½ Σ_h (downᵀu)_h [(l_h·d_m)(r_h·d_n) + (r_h·d_m)(l_h·d_n)], pair by pair."""
    weight, num = down.T @ u, dictionary.shape[1]
    s = dictionary.new_zeros(num, num)
    for m in range(num):
        for n in range(num):
            first, second = dictionary[:, m], dictionary[:, n]
            pairs = (left @ first) * (right @ second) + (right @ first) * (left @ second)
            s[m, n] = (weight * pairs).sum() / 2
    return s


def entries_of_kind(s: Tensor, kind: str) -> list[tuple[float, int, int]]:
    """(S[m, n], m, n) for m = n ("self") or m < n ("cross"), by falling size, then by (m, n)."""
    num = len(s)
    pairs = [(m, n) for m in range(num) for n in range(m, num) if (m == n) == (kind == "self")]
    found = [(float(s[m, n]), m, n) for m, n in pairs]
    return sorted(found, key=lambda entry: (-abs(entry[0]), entry[1], entry[2]))


def histogram(values: list[float], edges: list[float]) -> tuple[int, list[int], int]:
    """Values below the first edge, in each bin (the last one holds both edges), and above."""
    bins = range(len(edges) - 1)
    counts = [sum(edges[b] <= value < edges[b + 1] for value in values) for b in bins]
    counts[-1] += sum(value == edges[-1] for value in values)
    return sum(v < edges[0] for v in values), counts, sum(v > edges[-1] for v in values)


def squared_error(dense: Tensor, down: Tensor, left: Tensor, right: Tensor) -> Tensor:
    """‖B − Σ_a down_a ⊗ ½(left_a right_aᵀ + right_a left_aᵀ)‖², entry by entry."""
    return ((dense - dense_tensor(down, left, right)) ** 2).sum()


def best_left(dense: Tensor, down: Tensor, right: Tensor) -> Tensor:
    """The left rows with the least squared error, from one column of the problem an unknown."""
    rank, d_in = right.shape
    columns = []
    for place in range(rank * d_in):
        left = torch.zeros(rank * d_in, dtype=dense.dtype)
        left[place] = 1.0
        columns.append(dense_tensor(down, left.reshape(rank, d_in), right).reshape(-1))
    answer = torch.linalg.lstsq(torch.stack(columns, dim=1), dense.reshape(-1, 1)).solution
    return answer.reshape(rank, d_in)


def kruskal_rank(rows: Tensor) -> int:
    """The largest k such that every k rows are independent, one subset after the other."""
    largest = 0
    for size in range(1, len(rows) + 1):
        for subset in combinations(range(len(rows)), size):
            if int(torch.linalg.matrix_rank(rows[list(subset)], rtol=1e-9)) < size:
                return largest
        largest = size
    return largest


def dual_sum(dense: Tensor, directions: Tensor) -> Tensor:
    """Σ_k u_k⁺ ⊗ Q_{u_k}, one direction after the other."""
    duals = torch.linalg.pinv(directions)
    total = torch.zeros_like(dense)
    for k, u in enumerate(directions):
        total = total + torch.einsum("o,ij->oij", duals[:, k], torch.einsum("o,oij->ij", u, dense))
    return total
