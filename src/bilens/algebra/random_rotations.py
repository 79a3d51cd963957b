"""Spectra of factored maps whose branches were turned at random: the samples of a null."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.concentration import effective_rank
from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.gram.kernel import block_size, blocks, product_dtype, unit_rows
from bilens.algebra.mode_spectrum import BlockedTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count, check_type
from bilens.base.memory import MemoryEstimate

Null = Literal["rotation", "directions"]


def random_frame(d_in: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return `rank` orthonormal columns, (in, rank), distributed as the columns of a Haar O."""
    gauss = torch.randn(d_in, rank, generator=generator, dtype=torch.float64)
    columns, triangle = torch.linalg.qr(gauss)
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # makes QR unique, thus Haar
    frame: Tensor = columns * signs
    return frame


def corner_of(branch: Tensor) -> Tensor:
    """Return T of branch = T Vᵀ, (hidden, rank), with the columns of V orthonormal."""
    corner: Tensor = torch.linalg.qr(branch.T, mode="r").R.T
    return corner


def in_one_order(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return two branches in an order that does not depend on which one is called left.

    A product has no first factor: a seed draws the same rotation for the same branch.
    """
    reach = [float(unit_rows(branch)[0].abs().sum()) for branch in (left, right)]
    return (left, right) if reach[0] >= reach[1] else (right, left)


def embedding_corner(embedding: Tensor) -> Tensor:
    """Return S of Eᵀ = Y S, transposed, (in, rank): E in orthonormal coordinates."""
    return corner_of(embedding.detach().double())


def solved_width(sizes: FactorSizes, d_before: int) -> int:
    """Return the width of the largest form that is solved for one turned map."""
    return min(sizes.d_in, d_before, 2 * sizes.d_hidden)


def null_memory(
    sizes: FactorSizes, num: int, num_samples: int, width_before: int | None
) -> MemoryEstimate:
    """Estimate the memory of a null of `num` directions; `width_before` is before an embedding."""
    d_out, hidden, d_in = sizes
    d_before = d_in if width_before is None else width_before
    width = solved_width(sizes, d_before)
    factors = (d_out + 2 * d_in) * hidden  # in float64
    weights = num * (d_out + 2 * hidden)
    frame = d_in * min(hidden, d_in)  # three more while it is drawn
    branch = hidden * min(d_in, d_before)  # one is turned, both are stacked and factored
    turned = max(3 * frame, (7 if width == 2 * hidden else 2) * branch)
    embedding = 0 if width_before is None else 2 * branch + 3 * d_in * width_before
    results = (10 if width_before is None else 20) * num_samples * num
    # (width, hidden) once where a matrix is formed, and (width, width) at most four times.
    return MemoryEstimate(
        fixed=8 * (factors + weights + frame + turned + embedding + results),
        each=8 * (width * hidden + 4 * width**2),
    )


@dataclass(frozen=True, eq=False)
class NullEnds:
    """The two ends of the spectrum of every direction, after one random rotation."""

    # (3, directions): the largest eigenvalue, the smallest one, the effective rank; NaN where the
    # status is not OK
    numbers: Tensor
    status: tuple[Status, ...]  # one for each direction


def read_ends(left: Tensor, right: Tensor, weights: Tensor, chunk: int) -> NullEnds:
    """Return the ends of the spectra of ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for all rows w."""
    hidden, width = left.shape
    if 2 * hidden < width:
        left, right = torch.linalg.qr(torch.cat([left, right]).T, mode="r").R.T.split(hidden)
    parts = [_read(left, right, weights[rows]) for rows in blocks(len(weights), chunk)]
    return NullEnds(
        torch.cat([part.numbers for part in parts], dim=1),
        tuple(status for part in parts for status in part.status),
    )


def _read(left: Tensor, right: Tensor, weights: Tensor) -> NullEnds:
    matrices = _matrices(left, right, weights)
    finite = matrices.isfinite().all(dim=-1).all(dim=-1)
    matrices[~finite] = 0.0  # NaN must not reach a solver
    values = _solved(matrices)
    solved = values.isfinite().all(dim=-1)
    values = torch.where(solved[:, None], values, 0.0)
    numbers = [
        values[:, -1].clamp(min=0.0),  # eigenvalues ascend
        values[:, 0].clamp(max=0.0),
        effective_rank(values),
    ]
    status = [
        Status.OK if ok else Status.NOT_CONVERGED if came else Status.NOT_FINITE
        for ok, came in zip((solved & finite).tolist(), finite.tolist(), strict=True)
    ]
    return NullEnds(torch.where(solved & finite, torch.stack(numbers), torch.nan), tuple(status))


def _matrices(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Return ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for every row w of weights."""
    halves = (left.T * weights[:, None, :]) @ right
    return (halves + halves.mT) / 2


def _solved(matrices: Tensor) -> Tensor:
    """Return eigenvalues; NaN where the solver fails."""
    try:
        values: Tensor = torch.linalg.eigvalsh(matrices)
        return values
    except RuntimeError:  # torch.linalg.LinAlgError is one
        if len(matrices) == 1:
            return torch.full_like(matrices[:, 0], torch.nan)
    return torch.cat([_solved(half) for half in matrices.tensor_split(2)])


@dataclass(frozen=True, eq=False)
class OutputModeNull:
    effective_rank: Tensor  # (samples,), (Σσ)² / Σσ² of the singular values along the outputs
    top_share: Tensor  # (samples,), σ₁² / Σσ²
    # (samples,), (Σ|λ|)² / Σλ² of the form along the leading direction of a sample
    leading_rank: Tensor


def output_mode_null(
    f: QuadraticMap,
    generator: torch.Generator,
    num_samples: int,
    null: Null = "rotation",
    embedding: Tensor | None = None,
) -> OutputModeNull:
    """Sample the singular values along the outputs of a map, with its factors turned at random."""
    # "rotation" destroys how the two branches are aligned and nothing else; behind an embedding it
    # matters which of them is turned: a draw turns one and then the other. Where left and right
    # are the same rows, as in an ordinary MLP, that would destroy what every such layer has; there
    # "directions" turns each row on its own, and left and right with it.
    # Math: Gram = D H Dᵀ, H = ½[(LLᵀ)∘(RRᵀ) + M∘Mᵀ], M = L Rᵀ. A rotation of R leaves the first
    # term as it is, and is seen by M alone.
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    num_samples = check_count("num_samples", num_samples, minimum=1)
    tensor = f.detach().tensor
    # The rows have unit length, so that float32 is off by less than 1e-6 of the diagonal of H: no
    # more of an eigenvalue of D H Dᵀ, however small it is, where H is far from singular and D
    # in float64. An embedding can be near to singular, and is divided by.
    dtype = product_dtype(tensor.left) if embedding is None else torch.float64
    factors = BlockedTensor.from_parts(tensor.down, tensor.left, tensor.right)
    down, left, right = factors.unit_copies(dtype)
    if tensor.sizes.d_hidden < tensor.sizes.d_out:
        down = torch.linalg.qr(down, mode="r").R  # the same singular values
    kept = None
    if null == "rotation":
        left, right = in_one_order(left, right)
        kept = weighed(down, straight(left, right)) if embedding is None else None
    turn = turner(left, right, generator, null, embedding)
    del right
    samples = [read_sample(down, *drawn, kept) for _ in range(num_samples) for drawn in turn()]
    effective_ranks, top_shares, leading_ranks = torch.stack(samples, dim=1)
    return OutputModeNull(effective_ranks, top_shares, leading_ranks)


Turned = list[tuple[Tensor, Tensor]]  # the branches of a draw; behind an embedding of two


def turner(
    left: Tensor, right: Tensor, generator: torch.Generator, null: Null, embedding: Tensor | None
) -> Callable[[], Turned]:
    def directions() -> Turned:
        rows = unit_rows(torch.randn(left.shape, generator=generator, dtype=torch.float64))[0]
        return [((rows := rows.to(left)), rows)]

    if null == "directions":
        return directions
    if embedding is not None:
        after = embedding.detach().to(right)
        back = torch.linalg.pinv(after)
        corners = [corner_of(branch @ back) for branch in (right, left)]

        def each() -> Turned:
            frame = random_frame(len(after), corners[0].shape[1], generator).to(after)
            turned = [corner @ (frame.T @ after) for corner in corners]
            return [(left, turned[0]), (turned[1], right)]

        return each
    corner, width = corner_of(right), right.shape[1]
    rank = corner.shape[1]
    if 2 * rank < width:  # in coordinates that begin with the span of left
        own = torch.cat([corner_of(left), left.new_zeros(rank, rank)], dim=1)

        def spanned() -> Turned:
            frame = random_frame(width, rank, generator).to(corner)
            beyond = torch.linalg.qr(frame[rank:], mode="r").R
            return [(own, corner @ torch.cat([frame[:rank], beyond]).T)]

        return spanned

    def rotated() -> Turned:
        return [(left, corner @ random_frame(width, rank, generator).to(corner).T)]

    return rotated


def read_sample(down: Tensor, left: Tensor, right: Tensor, kept: Tensor | None = None) -> Tensor:
    """Return effective rank and top share of the outputs, and the rank of the leading form.

    `kept` is the part of their Gram matrix that a rotation leaves as it is, where it is known.
    """
    hidden, width = left.shape
    if right is left and hidden < width:
        left = right = torch.linalg.qr(left.T, mode="r").R.T
    elif 2 * hidden < width:
        left, right = torch.linalg.qr(torch.cat([left, right]).T, mode="r").R.T.split(hidden)
    if right is left:
        gram = weighed(down, straight(left, right))  # both terms are the same
    else:
        gram = weighed(down, crossed(left, right))
        gram += weighed(down, straight(left, right)) if kept is None else kept
    squares = torch.linalg.eigvalsh(gram)
    values = squares.clamp(min=0).sqrt()
    half = (left.T * (leading_vector(gram, squares) @ down).to(left)) @ right
    spectrum = torch.linalg.eigvalsh((half + half.T).double())
    mass = values.square().sum()
    share = values[-1].square() / mass.where(mass > 0, 1.0)
    return torch.stack([effective_rank(values), share, effective_rank(spectrum)])


def leading_vector(gram: Tensor, squares: Tensor) -> Tensor:
    """Return an eigenvector of the largest eigenvalue, by inverse iteration: a third of `eigh`."""
    size = float(squares[-1]) or 1.0
    near = gram - size * (1 + 1e-13) * torch.eye(len(gram), dtype=gram.dtype, device=gram.device)
    factored = torch.linalg.lu_factor(near)
    vector = gram.new_ones(len(gram), 1)
    for _ in range(3):
        vector = torch.linalg.lu_solve(*factored, vector)
        vector /= vector.norm()
    return vector[:, 0]


Kernel = Callable[[slice, slice], Tensor]  # a block of a symmetric matrix over the hidden units


def straight(left: Tensor, right: Tensor) -> Kernel:
    """Return (L Lᵀ)∘(R Rᵀ)."""
    if right is left:
        return lambda rows, columns: (left[rows] @ left[columns].T).square()
    return lambda rows, columns: (left[rows] @ left[columns].T) * (right[rows] @ right[columns].T)


def crossed(left: Tensor, right: Tensor) -> Kernel:
    """Return M∘Mᵀ with M = L Rᵀ."""
    return lambda rows, columns: (left[rows] @ right[columns].T) * (right[rows] @ left[columns].T)


def weighed(down: Tensor, kernel: Kernel) -> Tensor:
    """Return D H Dᵀ from the blocks of H on and above the diagonal."""
    hidden = down.shape[1]
    size = block_size(hidden, 9 * len(down))
    total = down.new_zeros(len(down), len(down))
    for rows in blocks(hidden, size):
        reached = down.new_zeros(rows.stop - rows.start, len(down))
        for columns in blocks(hidden, size, start=rows.start):
            part = kernel(rows, columns).to(down)
            reached += (part / 2 if columns == rows else part) @ down[:, columns].T
        total += down[:, rows] @ reached
    return total + total.T
