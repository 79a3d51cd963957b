"""Several starts of one CP fit: the strongest hidden units, then random rows."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch
from torch import Tensor

from bilens.algebra.cp import alternating_least_squares, limited_memory_bfgs
from bilens.algebra.cp.alternating_least_squares import Fitted
from bilens.algebra.cp.decomposition import Start
from bilens.algebra.cp.factors import Factors, Model, in_order, squared_sizes
from bilens.algebra.cp.target import Target, fit_error
from bilens.algebra.rows import unit_rows
from bilens.base.errors import NonFiniteError, NumericalError

Method = Literal["als", "gradient"]
FITS = {"als": alternating_least_squares.fit, "gradient": limited_memory_bfgs.fit}

RIDGE = 1e-12  # for each component: keeps Cholesky safe, and far below what a fit can show
DEGENERATE = 1e3  # Σ‖component‖²/‖B‖²: components thirty times the tensor they add up to
STRONG_RIDGE = 1e-6  # at that point a thousandth of ‖B‖²: enough to stop the growth


class Options(NamedTuple):
    """What every start has in common; see `cp_decompose`."""

    model: Model
    method: Method
    max_sweeps: int
    tolerance: float


class Attempt(NamedTuple):
    """One start: what is reported of it, and the model it ended with."""

    start: Start
    fitted: Fitted
    ridge: float


def run_starts(
    target: Target,
    rank: int,
    options: Options,
    num_starts: int,
    seed: int,
    progress: Callable[[int], None] | None,
) -> list[Attempt]:
    """Return every start: the strongest hidden units first, then random rows."""
    generator = torch.Generator().manual_seed(seed)
    attempts = []
    for done in range(num_starts):
        kind, draw = ("random", random_start) if done else ("neurons", strongest_start)
        begin = draw(target, rank, options.model, generator)
        attempts.append(attempt(target, kind, begin, options))
        if progress is not None:
            progress(done + 1)
    return attempts


def attempt(target: Target, kind: str, begin: Factors, options: Options) -> Attempt:
    """Fit from one start, a second time with a stronger penalty if components grow and cancel."""
    ridge, degenerate = RIDGE * len(begin.left), False
    fitted = Fitted(begin, (math.nan,), converged=False)
    try:
        fitted = run(target, begin, ridge, options)
        if float(squared_sizes(fitted.factors).sum()) > DEGENERATE:
            ridge, degenerate = STRONG_RIDGE, True
            fitted = run(target, fitted.factors, ridge, options)
        fit = 1 - fit_error(target, fitted.factors).relative_error ** 2
        failure = ""
    except (NumericalError, NonFiniteError, RuntimeError) as error:  # LinAlgError is one
        fit, failure = math.nan, f"{type(error).__name__}: {error}"
    start = Start(kind, fit, fitted.sweeps, fitted.converged, degenerate, failure)
    return Attempt(start, fitted, ridge)


def run(target: Target, begin: Factors, ridge: float, options: Options) -> Fitted:
    """Fit from one start with one penalty."""
    model, method, max_sweeps, tolerance = options
    fitted = FITS[method](target, begin, model, ridge, max_sweeps, tolerance)
    if not math.isfinite(fitted.losses[-1]):
        raise NumericalError("the loss is not finite")
    return fitted


def best_attempt(attempts: list[Attempt]) -> Attempt:
    """Return the attempt with the best fit, the first one of equals."""
    alive = [each for each in attempts if not each.start.failure]
    if not alive:
        raise NumericalError(
            f"none of {len(attempts)} starts gave a CP model ({attempts[0].start.failure}): "
            "ask for a smaller rank, or more starts."
        )
    return max(alive, key=lambda each: each.start.fit)


def random_start(target: Target, rank: int, model: Model, generator: torch.Generator) -> Factors:
    """Return standard normal rows; `down` is zero, since the fit begins with it."""
    left = random_rows(target, rank, generator)
    right = left if model == "symmetric" else random_rows(target, rank, generator)
    return with_zero_down(target, left, right)


def strongest_start(target: Target, rank: int, model: Model, generator: torch.Generator) -> Factors:
    """Return the rows of the `rank` hidden units whose terms are largest; random ones past them."""
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
