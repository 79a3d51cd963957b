"""A CP decomposition of a map: the best fit of several starts."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple, get_args

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.cp.cp_decomposition import CPDecomposition, Start, check_uniqueness
from bilens.algebra.cp.optimisers import Fitted, alternating_least_squares, limited_memory_bfgs
from bilens.algebra.cp.target import (
    SLAB_PRODUCTS,
    Factors,
    FitError,
    Model,
    Target,
    canonical,
    fit_error,
    in_order,
    squared_sizes,
)
from bilens.algebra.gram.kernel import block_bytes, unit_rows
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_choice, check_count, check_type
from bilens.base.errors import NonFiniteError, NumericalError, UsageError
from bilens.base.keyword_options import described, takes_options
from bilens.base.memory import check_memory

FACTORS = 3  # float64 copies of the factors of the map alive at once
PAIRS = 25  # L-BFGS keeps 20 steps and 20 changes of the gradient, each as large as a model


Method = Literal["als", "gradient"]


@dataclass(frozen=True, kw_only=True)
class CPOptions:
    """The components of a CP decomposition, and how they are fitted."""

    model: Model = described("pairs", '"pairs" or "symmetric".')
    method: Method = described(
        "als",
        '"als" (alternating least squares: no sweep raises the error) or "gradient" (L-BFGS on all '
        "factors).",
    )
    num_starts: int = described(
        3,
        "The first start is the strongest hidden units, the others are random; the best fit is "
        "kept. The problem has local minima: compare the fits in `starts`.",
    )
    seed: int = described(0, "Of the random starts.")
    max_sweeps: int = described(500, "Sweeps or iterations at most, for each start.")
    tolerance: float = described(
        1e-7,
        'Stop when a sweep lowers the loss by less than this share of it ("gradient": when an '
        "iteration lowers it by less than a thousandth of this, in units of ‖B‖²).",
    )
    progress: Callable[[int], None] | None = described(
        None, "Called with the number of starts that are done."
    )
    memory_limit: int | str | None = described(
        None, 'Bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.'
    )

    def __post_init__(self) -> None:
        check_choice("model", self.model, get_args(Model))
        check_choice("method", self.method, get_args(Method))
        if not 0 < self.tolerance < 1:
            raise UsageError(
                f"tolerance={self.tolerance!r}: a number between 0 and 1 was expected."
            )
        for name, least in (("num_starts", 1), ("seed", 0), ("max_sweeps", 1)):
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum=least))


@takes_options(CPOptions)
def cp_decompose(f: QuadraticMap, rank: int, options: CPOptions) -> CPDecomposition:
    """Return the quadratic part of a map as a sum of few components shared by all outputs.

    Math: "pairs": B ≈ Σ_a p_a ⊗ sym(l_a r_aᵀ), the products (l_a·x)(r_a·x) of a bilinear layer
        with `rank` hidden units. "symmetric": l_a = r_a, the squares (l_a·x)², with signs in p_a.
        Squared error ‖B − B̂‖², and next to it a tiny penalty (see `ridge` of the record).
    Cost: O(hidden² · (in + out)) once; a sweep O(rank · hidden · (in + out) + rank² · (in + out) +
        rank³). Memory: three float64 copies of the factors, O((hidden + in + out) · rank), fifty
        models of `rank` components more with "gradient", and at most 128 MiB. The (out, in, in)
        tensor is not built; only a fit close to rounding is measured slab by slab, O(in²) memory.

    Args:
        f: the map, any floating dtype; its linear and constant terms are kept as they are.
        rank: how many components; at most the hidden units ("pairs") or twice them ("symmetric").
        options: a `CPOptions`, or its fields:

    Returns: components by falling size; of size zero, with fit 1, for a tensor that is zero.
    Raises: UsageError for an argument that is not one of the above; NonFiniteError if products of
        the factors overflow; NumericalError if every start fails; MemoryLimitError, before
        anything is begun, if the fit needs more memory than allowed.
    Source: T. G. Kolda, B. W. Bader, 2009, SIAM Review 51, §3.
    """
    check_type("f", f, QuadraticMap, "one form alone is taken apart exactly by eigendecompose")
    rank, method = check_rank(f, rank, options.model), options.method
    check_memory(
        fit_bytes(f.sizes, rank, method, options.num_starts),
        f"a CP fit of rank {rank} to {f.sizes.d_hidden} hidden units",
        "ask for a smaller rank" if method == "als" else "use method='als' or a smaller rank",
        options.memory_limit,
        device=f.device,
    )
    target = Target.from_tensor(f.tensor)
    if target.norm == 0:
        kept = zero_attempt(target, rank)
        attempts, error, factors = [kept], FitError(0.0, 0.0), kept.fitted.factors
    else:
        attempts = run_starts(target, rank, options)
        kept = best_attempt(attempts)
        factors = canonical(kept.fitted.factors)
        error = fit_error(target, factors)
    return CPDecomposition(
        down=factors.down * target.norm,
        left=factors.left,
        right=factors.right,
        linear=double(f.linear),
        constant=double(f.constant),
        fit=1 - error.relative_error**2,
        relative_error=error.relative_error,
        resolution=error.resolution,
        cancellation=float(squared_sizes(factors).sum()),
        ridge=kept.ridge,
        uniqueness=check_uniqueness(factors, options.model),
        starts=tuple(attempt.start for attempt in attempts),
        best=attempts.index(kept),
        losses=kept.fitted.losses,
        model=options.model,
        method=method,
        basis=f.basis,
    )


def zero_attempt(target: Target, rank: int) -> Attempt:
    rows = target.down.new_zeros(rank, target.stacked.shape[1])
    rows[:, 0] = 1.0
    factors = Factors(rows.new_zeros(len(target.down), rank), rows, rows)
    start = Start("zero", 1.0, sweeps=0, converged=True, degenerate=False)
    return Attempt(start, Fitted(factors, (0.0,), converged=True), ridge=0.0)


def check_rank(f: QuadraticMap, rank: int, model: Model) -> int:
    rank = check_count("rank", rank, minimum=1)
    d_hidden = f.sizes.d_hidden
    most = d_hidden if model == "pairs" else 2 * d_hidden
    if rank > most:
        raise UsageError(
            f"rank={rank}, but the {d_hidden} hidden units of the map are themselves a sum of "
            f"{most} such components: ask for at most {most}."
        )
    return rank


def double(part: Tensor | None) -> Tensor | None:
    return None if part is None else part.detach().double()


def fit_bytes(sizes: FactorSizes, rank: int, method: str, num_starts: int) -> int:
    d_out, d_hidden, d_in = sizes
    factors = FACTORS * (d_out + 2 * d_in) * d_hidden
    largest_slab = SLAB_PRODUCTS // (d_hidden * min(d_out, d_hidden))  # larger ones are not built
    slabs = 3 * min(d_in**2, 4 * (d_hidden + rank) ** 2, largest_slab)
    products = rank * (10 * d_hidden + 16 * d_in + 4 * d_out) + 8 * rank**2
    model = rank * (d_out + 2 * d_in)
    history = 2 * PAIRS * model if method == "gradient" else 0
    norms = block_bytes(d_hidden, 6 * d_in)
    return 8 * (factors + slabs + products + num_starts * model + history) + norms


FITS = {"als": alternating_least_squares, "gradient": limited_memory_bfgs}

RIDGE = 1e-12  # for each component: keeps Cholesky safe, and far below what a fit can show
DEGENERATE = 1e3  # Σ‖component‖²/‖B‖²: components thirty times the tensor they add up to
STRONG_RIDGE = 1e-6  # at that point a thousandth of ‖B‖²: enough to stop the growth


class Attempt(NamedTuple):
    """One start: what is reported of it, and the model it ended with."""

    start: Start
    fitted: Fitted
    ridge: float


def run_starts(target: Target, rank: int, options: CPOptions) -> list[Attempt]:
    generator = torch.Generator().manual_seed(options.seed)
    attempts = []
    for done in range(options.num_starts):
        kind, draw = ("random", random_start) if done else ("neurons", strongest_start)
        begin = draw(target, rank, options.model, generator)
        attempts.append(attempt(target, kind, begin, options))
        if options.progress is not None:
            options.progress(done + 1)
    return attempts


def attempt(target: Target, kind: str, begin: Factors, options: CPOptions) -> Attempt:
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


def run(target: Target, begin: Factors, ridge: float, options: CPOptions) -> Fitted:
    how = options.model, ridge, options.max_sweeps, options.tolerance
    fitted = FITS[options.method](target, begin, *how)
    if not math.isfinite(fitted.losses[-1]):
        raise NumericalError("the loss is not finite")
    return fitted


def best_attempt(attempts: list[Attempt]) -> Attempt:
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
    return Factors(target.down.new_zeros(len(target.down), len(left)), left, right)
