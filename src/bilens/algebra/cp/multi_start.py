"""Several starts of one CP fit: one that fails does not lose the others."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Literal, NamedTuple

import torch

from bilens.algebra.cp import alternating_least_squares, limited_memory_bfgs
from bilens.algebra.cp.decomposition import Start
from bilens.algebra.cp.factors import Factors, Model, squared_sizes
from bilens.algebra.cp.fit_error import fit_error
from bilens.algebra.cp.fitted import Fitted
from bilens.algebra.cp.starts import random_start, strongest_start
from bilens.algebra.cp.target import Target
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
    """Fit from one start with one penalty.

    Raises:
        NumericalError: If the loss is not finite.
    """
    model, method, max_sweeps, tolerance = options
    fitted = FITS[method](target, begin, model, ridge, max_sweeps, tolerance)
    if not math.isfinite(fitted.losses[-1]):
        raise NumericalError("the loss is not finite")
    return fitted


def best_attempt(attempts: list[Attempt]) -> Attempt:
    """Return the attempt with the best fit, the first one of equals.

    Raises:
        NumericalError: If every start failed.
    """
    alive = [each for each in attempts if not each.start.failure]
    if not alive:
        raise NumericalError(
            f"none of {len(attempts)} starts gave a CP model ({attempts[0].start.failure}): "
            "ask for a smaller rank, or more starts."
        )
    return max(alive, key=lambda each: each.start.fit)
