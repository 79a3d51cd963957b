"""How a stored matrix changed: the rank of ΔW, beside what rounding and noise would leave."""

import math
from dataclasses import dataclass

import torch
from torch import Tensor

WHOLE = 256  # smaller sides up to which all singular values are computed
LOOKED_FOR = (32, 256)  # of larger matrices; the second number where the first ends early
SPARE = 8  # more, which make the others accurate
KEPT = 0.2  # of a singular value, that is its own and no error of the others
RARE = 0.01  # of matrices of noise, the share that may be beyond the edge
NARROW = (torch.bfloat16, torch.float16, torch.float32)


@dataclass(frozen=True)
class MatrixChange:
    norm: float  # ‖ΔW‖
    top_share: float  # σ₁² / ‖ΔW‖²
    rank: int | None  # singular values above those of rounding; None for more than are looked for
    is_noise: bool  # σ₁ is what independent noise of the same rows and columns would have


def matrix_change(old: Tensor, new: Tensor) -> MatrixChange:
    """Return the rank of ΔW = new − old, each (m, n), beside its null: rounding as it was stored.

    Where W + A with A of rank r was rounded, ΔW = A + E with |Eᵢⱼ| ≤ uᵢⱼ / 2, u the distance of
    neighbouring numbers. Such errors are spread evenly, Var Eᵢⱼ = uᵢⱼ² / 12, and independent, so
    that `noise_edge` bounds ‖E‖ (Bandeira and van Handel, 2016). By Weyl no more than r singular
    values are above ‖E‖, and all r where σᵣ(A) > 2 ‖E‖. Errors of W + A are counted, and two of A,
    which is computed and scaled; where that rank is not low, those of W too: both may have been
    rounded from wider weights. Errors that follow A are no noise: directions beyond the largest
    gap have to be more (`is_needed`). The precision is the narrowest dtype that holds all entries.

    Cost: O(m n min(m, n)) up to a smaller side of 256. Beyond, about 10 m n k for the k = 32, or
    256, leading singular values by subspace iteration (Halko, Martinsson and Tropp, 2011): lower
    bounds, tight for those far above the rest. Memory: about six of the matrix in float64.
    """
    delta = new.to(torch.float64, copy=True).sub_(old)
    rows, columns, small = delta.square().sum(1), delta.square().sum(0), min(delta.shape)
    total = float(rows.sum())
    if total == 0:
        return MatrixChange(0.0, 0.0, 0, False)
    edges = rounding_edges(old, new, delta)
    for count in LOOKED_FOR if small > WHOLE else (small,):
        _, values, _ = leading_singular_vectors(delta, count)
        least = max(delta.shape) * torch.finfo(torch.float64).eps * values[0]
        merged, both = (int((values > edge).sum()) for edge in edges.maximum(least))
        rank = both if is_low(both, small) and not is_low(merged, small) else merged
        known = count == small or rank <= count
        if known:
            break
    slack = (spacing(new, precision(new)) + (rank != merged) * spacing(old, precision(old))) / 2
    if 1 < rank <= small / 2:
        gap = 1 + int((values[: rank - 1] / values[1:rank]).argmax())
        rank = rank if is_needed(delta, slack, gap + 1) else gap
    is_noise = bool(values[0] <= noise_edge(rows, columns, rows.amax() / len(columns)))
    share = min(float(values[0].square()) / total, 1.0)
    return MatrixChange(math.sqrt(total), share, rank if known else None, is_noise)


def is_low(rank: int | None, small: int) -> bool:
    """Tell whether a rank is at most half of what a matrix of this smaller side can have."""
    return rank is not None and 2 * rank <= small


def noise_edge(rows: Tensor, columns: Tensor, largest: Tensor) -> Tensor:
    """Return a bound on the norm of noise: √max row + √max column + √(2 log(mn/RARE) · max).

    `rows` (…, m) and `columns` (…, n) are sums of the variances of independent entries, `largest`
    the largest one. The first two terms bound the mean of the norm, the last one its deviation.
    """
    size = rows.shape[-1] * columns.shape[-1]
    spread = rows.amax(-1).sqrt() + columns.amax(-1).sqrt()
    return spread + (2 * math.log(size / RARE) * largest).sqrt()


def rounding_edges(old: Tensor, new: Tensor, delta: Tensor) -> Tensor:
    """Return the edges of the errors of W + A and A, and of these and W, (2,)."""
    after = precision(new)
    merged = spacing(new, after).square() + 2 * spacing(delta, after).square()
    variance = torch.stack([merged, merged + spacing(old, precision(old)).square()]) / 12
    return noise_edge(variance.sum(2), variance.sum(1), variance.amax((1, 2)))


def precision(matrix: Tensor) -> torch.dtype:
    """Return the narrowest dtype that holds all entries exactly."""
    fits = (dtype for dtype in NARROW if bool((matrix.to(dtype).to(matrix.dtype) == matrix).all()))
    return next(fits, torch.float64)


def spacing(values: Tensor, dtype: torch.dtype) -> Tensor:
    """Return how far the numbers of a dtype are apart at some values."""
    limits = torch.finfo(dtype)
    exponent = torch.frexp(values.double().abs().clamp(min=limits.tiny)).exponent
    return limits.eps * torch.pow(2.0, exponent.double() - 1)


def is_needed(delta: Tensor, slack: Tensor, rank: int) -> bool:
    """Tell whether the last of some directions is more than what rounding makes of the others."""
    left, values, right = leading_singular_vectors(delta, rank)
    others = (left[:, : rank - 1] * values[: rank - 1]) @ right[:, : rank - 1].T
    nearest = others.clamp(delta - slack, delta + slack)  # that is rounded to what is stored
    return bool(leading_singular_vectors(nearest, rank)[1][rank - 1] > KEPT * values[rank - 1])


def leading_singular_vectors(matrix: Tensor, count: int) -> tuple[Tensor, Tensor, Tensor]:
    """Return vectors and values, at least so many, of a matrix on the processor."""
    if min(matrix.shape) <= WHOLE:
        left, values, right = torch.linalg.svd(matrix, full_matrices=False)
        return left, values, right.T
    with torch.random.fork_rng(devices=[]):  # the state of all random numbers stays
        torch.default_generator.manual_seed(0)  # `torch.manual_seed` would set those of a GPU too
        return torch.svd_lowrank(matrix, count + SPARE)
