"""Where the fit of a CP model starts: the strongest hidden units, or random rows."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.cp.factors import Factors, Model
from bilens.algebra.cp.target import Target
from bilens.algebra.unit_rows import unit_rows


def random_start(target: Target, rank: int, model: Model, generator: torch.Generator) -> Factors:
    """Return standard normal rows; `down` is zero, since the fit begins with it."""
    left = random_rows(target, rank, generator)
    right = left if model == "symmetric" else random_rows(target, rank, generator)
    return with_zero_down(target, left, right)


def strongest_start(target: Target, rank: int, model: Model, generator: torch.Generator) -> Factors:
    """Return the rows of the `rank` hidden units whose terms are largest; random ones past them.

    In the model "symmetric" a hidden unit offers its two eigenvectors l ± r, by falling
    |eigenvalue| ½|l·r ± 1| times its size. The order of hidden units, their scale, and which
    of their branches is called left change nothing.
    """
    left, right = target.stacked.chunk(2)
    sizes, overlap = target.down.norm(dim=0), (left * right).sum(dim=1)
    if model == "symmetric":
        candidates, _ = unit_rows(torch.cat([left + right, left - right]))
        strength = torch.cat([sizes * (1 + overlap), sizes * (1 - overlap)]) / 2
        rows = chosen_rows(target, candidates, strength, rank, generator)
        return with_zero_down(target, rows, rows)
    strength = sizes * ((1 + overlap.square()) / 2).sqrt()
    first, second = in_order(left, right)
    first_rows = chosen_rows(target, first, strength, rank, generator)
    return with_zero_down(
        target, first_rows, chosen_rows(target, second, strength, rank, generator)
    )


def in_order(left: Tensor, right: Tensor) -> tuple[Tensor, Tensor]:
    """Return pairs of rows with a rule for which comes first, since sym(l rᵀ) = sym(r lᵀ).

    The first one has the larger entry where the two first differ by more than rounding.
    """
    difference = left - right
    apart = (difference.abs() > 1e-8).int()
    leading = difference.gather(1, apart.argmax(dim=1, keepdim=True))
    swap = (leading < 0) & apart.any(dim=1, keepdim=True)
    return torch.where(swap, right, left), torch.where(swap, left, right)


def chosen_rows(
    target: Target, candidates: Tensor, strength: Tensor, rank: int, generator: torch.Generator
) -> Tensor:
    """Return the `rank` strongest candidates; random rows in place of missing or zero ones."""
    rows = random_rows(target, rank, generator)
    order = torch.argsort(strength, descending=True, stable=True)[:rank]
    order = order[candidates[order].any(dim=1)]
    rows[: len(order)] = candidates[order]
    return rows


def random_rows(target: Target, rank: int, generator: torch.Generator) -> Tensor:
    """Return (rank, in) standard normal entries, drawn on the processor on any device."""
    shape = (rank, target.stacked.shape[1])
    rows = torch.randn(shape, generator=generator, dtype=torch.float64)
    return rows.to(target.stacked.device)


def with_zero_down(target: Target, left: Tensor, right: Tensor) -> Factors:
    """Return factors whose `down` is still to be fitted."""
    return Factors(target.down.new_zeros(len(target.down), len(left)), left, right)
