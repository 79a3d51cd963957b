"""What spectra look like under the null: the rotation null of a factored map."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.concentration import effective_rank, localisation
from bilens.algebra.gram.blocks import blocks
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null_record import RotationNull as RotationNull  # its public place
from bilens.algebra.status import Status
from bilens.base.checks import check_count, check_dense_tensor, check_float_tensor, check_type
from bilens.base.errors import ShapeError
from bilens.base.memory import MemoryEstimate

CHUNK_BYTES = 256 * 2**20  # more of them together are no faster


def rotation_null(
    f: QuadraticMap,
    directions: Tensor | None,
    generator: torch.Generator,
    num_samples: int = 99,
    embedding: Tensor | None = None,
    progress: Callable[[int], None] | None = None,
    localised: bool = False,
    *,
    memory_limit: int | str | None = None,
) -> RotationNull:
    """Sample the spectra of a layer with right ← right·O, O a random rotation (Haar measure).

    The rotation keeps left, right and down each as they are, up to the basis of right, and
    destroys only how left and right are aligned. Unlike the Wigner edge or a permutation of
    entries, it declares outliers in a purely random factored map at its level only. All
    directions share a rotation. Linear and constant terms take no part.

    **Behind an embedding.** Branches that read one embedding E share its row space and its
    stretching, trained or not. Rotating left·E and right·E against each other would destroy that
    too, and call every random classifier aligned. So f is the layer as it stands behind E, O
    turns there, and the spectra are those of Eᵀ Q E, in the basis before E.

    The level depends on what the function does not determine: which branch of a neuron is called
    left, and, behind an embedding, the basis it is written in.

    Math: only O's action on the row space of right matters, a random orthonormal frame W: with
        right = T Vᵀ (thin QR), right·O is distributed as T Wᵀ. With Eᵀ = Y S the nonzero
        eigenvalues of Eᵀ Q E are those of S Q Sᵀ. If 2·hidden is less than the width, a second
        thin QR of both branches leaves a problem of that size.
    Cost: for each sample O(in · hidden²) time, and O(min(in, 2·hidden)³) for each direction, in
        the width of the layer. The whole spectra are needed for the effective rank, but only
        their ends are kept: memory is O(hidden · (in + directions) + samples · directions) beside
        the map, and four matrices for each of the directions that are solved together: as many
        as fit in 256 MiB, and in the limit.

    Args:
        f: the layer, in the space in which its right branch is rotated.
        directions: (num, out), one output direction a row; None reads every output as it is.
        generator: the source of randomness.
        num_samples: number of rotations; 99 gives p-values down to 0.01.
        embedding: E, (in, in'), in front of the layer; None where there is none.
        progress: called with the number of samples done.
        localised: sample the localisation of the extreme eigenvectors, too: about three times
            the time.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Returns:
        A direction that is not finite, whose form overflows, or that the solver fails on is
        flagged in `status` and holds NaN; the others are not affected.

    Raises:
        ShapeError: If directions or embedding do not fit the map.
        NonFiniteError: If the embedding holds NaN or infinity.
        UsageError: If num_samples is less than 1, or f or generator is something else.
        MemoryLimitError: If not even one direction at a time fits into the memory allowed.

    Source: the null follows the gauge freedom of the factors; see docs/math.md.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    check_type("generator", generator, torch.Generator, "use torch.Generator().manual_seed(0)")
    num = f.sizes.d_out if directions is None else check_directions(f, directions)
    num_samples = check_count("num_samples", num_samples, minimum=1)
    check_embedding(f, embedding)
    width_before = None if embedding is None else embedding.shape[1]
    width = solved_width(f.sizes, f.sizes.d_in if width_before is None else width_before)
    chunk = null_memory(f.sizes, num, num_samples, width_before, localised).at_a_time(
        num,
        CHUNK_BYTES,
        f"a rotation null of {num} directions of width {width}",
        "read fewer directions at a time",
        memory_limit,
    )
    with torch.no_grad():
        down, left, right = (
            part.double() for part in (f.tensor.down, f.tensor.left, f.tensor.right)
        )
        weights = down if directions is None else directions.double() @ down
        corner = torch.linalg.qr(right.T, mode="r").R.T  # (hidden, rank): right = corner Vᵀ
        inputs, corner_before = None, None
        if embedding is not None:
            inputs, corner_before = embedding_parts(embedding)
            left = left @ corner_before

        def lift(vectors: Tensor) -> Tensor:
            return vectors if inputs is None else vectors @ inputs

        samples = []
        for done in range(num_samples):
            rotated = random_frame(f.sizes.d_in, corner.shape[1], generator).T
            if corner_before is not None:
                rotated = rotated @ corner_before
            ends = read_ends(left, corner @ rotated, weights, chunk, lift if localised else None)
            samples.append(ends)
            if progress is not None:
                progress(done + 1)
    return joined(samples)


def joined(samples: list[Ends]) -> RotationNull:
    """Return the null of all samples; a direction that failed in one of them is left out of all."""
    status = tuple(
        next((one for one in each if one is not Status.OK), Status.OK)
        for each in zip(*(ends.status for ends in samples), strict=True)
    )
    numbers = torch.stack([ends.numbers for ends in samples], dim=1)  # (3 or 5, samples, num)
    failed = torch.tensor([one is not Status.OK for one in status], device=numbers.device)
    largest, smallest, rank, *localisations = numbers.masked_fill(failed, torch.nan)
    return RotationNull(largest, smallest, rank, status, *localisations)


def check_directions(f: QuadraticMap, directions: Tensor) -> int:
    """Return the number of (num, out) directions; a row that is not finite passes."""
    num, d_out = check_dense_tensor("directions", directions, num_axes=2)
    if d_out != f.sizes.d_out or num == 0:
        raise ShapeError(
            f"directions has shape {(num, d_out)}; expected (num, {f.sizes.d_out}), "
            "one output direction a row."
        )
    return num


def check_embedding(f: QuadraticMap, embedding: Tensor | None) -> None:
    """Refuse an embedding that does not end where the layer begins."""
    if embedding is None:
        return
    rows, _ = check_float_tensor("embedding", embedding, num_axes=2)
    if rows != f.sizes.d_in:
        raise ShapeError(
            f"embedding has shape {tuple(embedding.shape)}; the layer reads {f.sizes.d_in} "
            f"inputs, so ({f.sizes.d_in}, in') was expected."
        )


def embedding_parts(embedding: Tensor) -> tuple[Tensor, Tensor]:
    """Return Yᵀ and Sᵀ of Eᵀ = Y S."""
    columns, corner = torch.linalg.qr(embedding.detach().double().T)
    return columns.T, corner.T


def random_frame(d_in: int, rank: int, generator: torch.Generator) -> Tensor:
    """Return `rank` orthonormal columns, (in, rank), distributed as the columns of a Haar O."""
    gauss = torch.randn(d_in, rank, generator=generator, dtype=torch.float64)
    columns, triangle = torch.linalg.qr(gauss)
    signs = torch.where(triangle.diagonal() < 0, -1.0, 1.0)  # makes QR unique, thus Haar
    frame: Tensor = columns * signs
    return frame


def solved_width(sizes: FactorSizes, d_before: int) -> int:
    """Return the width of the matrices that are solved."""
    return min(sizes.d_in, d_before, 2 * sizes.d_hidden)


def null_memory(
    sizes: FactorSizes, num: int, num_samples: int, width_before: int | None, localised: bool
) -> MemoryEstimate:
    """Return what a null of `num` directions takes; `width_before` is that before an embedding."""
    d_out, hidden, d_in = sizes
    d_before = d_in if width_before is None else width_before
    width = solved_width(sizes, d_before)
    factors = (d_out + 2 * d_in) * hidden  # in float64
    weights = num * (d_out + 2 * hidden)
    frame = d_in * min(hidden, d_in)  # three more while it is drawn
    branch = hidden * min(d_in, d_before)  # right is turned, both are stacked and factored
    turned = max(3 * frame, (7 if width == 2 * hidden else 2) * branch)
    embedding = 0 if width_before is None else branch + 3 * d_in * width_before
    results = 10 * num_samples * num
    # (width, hidden) once where a matrix is formed, and (width, width) at most four times.
    vectors = 4 * (width + d_before) if localised else 0
    return MemoryEstimate(
        fixed=8 * (factors + weights + frame + turned + embedding + results),
        each=8 * (width * hidden + 4 * width**2 + vectors),
    )


Lift = Callable[[Tensor], Tensor]  # vectors along the last axis, to the basis they are read in


@dataclass(frozen=True, eq=False)
class Ends:
    """What the null keeps of one rotation, for every direction."""

    # (3, directions) or, with localisation, (5, directions): the largest eigenvalue, the smallest
    # one, the effective rank, the localisation of the largest and of the smallest; NaN where the
    # status is not OK
    numbers: Tensor
    status: tuple[Status, ...]  # one for each direction


def read_ends(
    left: Tensor, right: Tensor, weights: Tensor, chunk: int, localised: Lift | None
) -> Ends:
    """Return the ends of the spectra of ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for all rows w."""
    hidden, width = left.shape
    if 2 * hidden < width:
        stacked = torch.cat([left, right]).T
        columns, corner = torch.linalg.qr(stacked, mode="r" if localised is None else "reduced")
        left, right = corner[:, :hidden].T, corner[:, hidden:].T
        localised = None if localised is None else _through(columns, localised)
    parts = [_read(left, right, weights[rows], localised) for rows in blocks(len(weights), chunk)]
    return Ends(
        torch.cat([part.numbers for part in parts], dim=1),
        tuple(status for part in parts for status in part.status),
    )


def _through(columns: Tensor, lift: Lift) -> Lift:
    """Return the lift of coordinates along (in, width) columns."""
    return lambda vectors: lift(vectors @ columns.T)


def _read(left: Tensor, right: Tensor, weights: Tensor, lift: Lift | None) -> Ends:
    """Return the ends of a few directions, solved together."""
    matrices = _matrices(left, right, weights)
    finite = matrices.isfinite().all(dim=-1).all(dim=-1)
    matrices[~finite] = 0.0  # NaN must not reach a solver
    values, columns = _solved(matrices, vectors=lift is not None)
    solved = values.isfinite().all(dim=-1)
    values = torch.where(solved[:, None], values, 0.0)
    numbers = [
        values[:, -1].clamp(min=0.0),  # eigenvalues ascend
        values[:, 0].clamp(max=0.0),
        effective_rank(values),
    ]
    if lift is not None:
        for end, there in ((-1, values[:, -1] > 0), (0, values[:, 0] < 0)):
            vectors = torch.where(solved[:, None], columns[:, :, end], 0.0)
            numbers.append(torch.where(there, localisation(lift(vectors)), 0.0))
    status = [
        Status.OK if ok else Status.NOT_CONVERGED if came else Status.NOT_FINITE
        for ok, came in zip((solved & finite).tolist(), finite.tolist(), strict=True)
    ]
    return Ends(torch.where(solved & finite, torch.stack(numbers), torch.nan), tuple(status))


def _matrices(left: Tensor, right: Tensor, weights: Tensor) -> Tensor:
    """Return ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for every row w of weights."""
    halves = (left.T * weights[:, None, :]) @ right
    return (halves + halves.mT) / 2


def _solved(matrices: Tensor, vectors: bool) -> tuple[Tensor, Tensor]:
    """Return eigenvalues and eigenvectors (none unless asked for); NaN where the solver fails."""
    nothing = matrices.new_zeros(len(matrices), 0, 0)
    try:
        if vectors:
            values, columns = torch.linalg.eigh(matrices)
            return values, columns
        return torch.linalg.eigvalsh(matrices), nothing
    except RuntimeError:  # torch.linalg.LinAlgError is one
        if len(matrices) == 1:
            gap = torch.full_like(matrices, torch.nan)
            return gap[:, 0], gap if vectors else nothing
    halves = [_solved(half, vectors) for half in matrices.tensor_split(2)]
    return torch.cat([half[0] for half in halves]), torch.cat([half[1] for half in halves])
