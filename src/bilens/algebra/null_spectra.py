"""What is kept of the spectra of one random rotation: the ends, the effective rank, the status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.gram.blocks import blocks
from bilens.algebra.localisation import localisation
from bilens.algebra.status import Status

Lift = Callable[[Tensor], Tensor]  # vectors along the last axis, to the basis they are read in


@dataclass(frozen=True, eq=False)
class Ends:
    """What the null keeps of one rotation, for every direction.

    Attributes:
        numbers: (3, directions) or, with localisation, (5, directions): the largest eigenvalue,
            the smallest one, the effective rank, the localisation of the largest and of the
            smallest; NaN where the status is not OK.
        status: one for each direction.
    """

    numbers: Tensor
    status: tuple[Status, ...]


def read_ends(
    left: Tensor, right: Tensor, weights: Tensor, chunk: int, localised: Lift | None
) -> Ends:
    """Return the ends of the spectra of ½ Σ_h w_h (l_h r_hᵀ + r_h l_hᵀ) for all rows w of weights.

    Cost: O(min(in, 2·hidden)³) a direction, `chunk` directions at a time.

    Args:
        left: (hidden, in).
        right: (hidden, in).
        weights: (directions, hidden).
        chunk: how many directions are solved together.
        localised: takes vectors to the basis in which their localisation is read; None to leave
            it out.
    """
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
    """Return eigenvalues and eigenvectors (none unless asked for); NaN where the solver fails.

    A solver that fails on one matrix refuses all that came with it: they are halved until it is
    alone.
    """
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
