"""How far a few eigenpairs go in predicting an output latent on data."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import random_frame
from bilens.base.checks import check_count, check_float_tensor, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.chosen_latents import check_latents
from bilens.interp.records import LowRankFit
from bilens.interp.tracer import only

EDGE = 0.95


def low_rank_fit(
    g: QuadraticMap,
    eigenpairs: EigenDecomposition,
    inputs: Tensor,
    active: Tensor,
    generator: torch.Generator,
    *,
    latents: Tensor | Sequence[int] | None = None,
    ranks: Sequence[int] | None = None,
    num_random: int = 20,
) -> LowRankFit:
    """Compare output latents with their k leading eigenpairs, for several k.

    Math: q_k(x) = Σ_{i≤k} λ_i (v_i·x)² + linear·x + constant against g_a(x). The null keeps the
        eigenvalues and draws orthonormal directions from the Haar measure: inputs are far from
        isotropic, so that random directions correlate, too.
    Cost: O(inputs · (in · (latents · k + num_random · k) + latents · num_random · k)) time beside
        the map itself, O(inputs · (in + latents + num_random · k)) memory.

    Args:
        g: `latent_map`.
        eigenpairs: a batch, one for each latent, by falling |λ|, in the basis of `inputs`.
        inputs: (num_inputs, in), what the MLP read.
        active: (num_inputs, latents) bool, where each latent is active (activation > 0).
        generator: draws the random directions.
        latents: (latents,) which outputs of g; None for all.
        ranks: the k; None for 1, 2, 4, … up to all pairs at hand.
        num_random: how many random forms.

    Raises:
        ShapeError: If the parts do not fit together.
        NonFiniteError: If an input is NaN or infinite.
        UsageError: If a rank is less than 1 or more than there are pairs, or num_random < 1.
        NumericalError: If a form was not decomposed.
    """
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    num_random = check_count("num_random", num_random, minimum=1)
    chosen = check_latents(latents, g.sizes.d_out)
    num_inputs, width = check_float_tensor("inputs", inputs, num_axes=2)
    if eigenpairs.eigenvectors.shape[::2] != (len(chosen), width) or width != g.sizes.d_in:
        raise ShapeError(
            f"eigenpairs hold vectors of shape {tuple(eigenpairs.eigenvectors.shape)}, inputs have "
            f"{width} entries and the map reads {g.sizes.d_in}: one form for each of the "
            f"{len(chosen)} latents, in the basis of the inputs, was expected."
        )
    if active.shape != (num_inputs, len(chosen)) or active.dtype != torch.bool:
        raise ShapeError(
            f"active holds {active.dtype} in shape {tuple(active.shape)}; expected bool "
            f"({num_inputs}, {len(chosen)}): activations > 0 of each latent."
        )
    eigenpairs.check_usable()
    kept = check_ranks(ranks, eigenpairs.eigenvalues.shape[-1])
    with torch.no_grad():
        x = inputs.detach().double()
        g = g.detach().to(torch.float64)
        frames = torch.stack(
            [random_frame(width, kept[-1], generator).T for _ in range(num_random)]
        )
        chance = (x @ frames.flatten(0, 1).T).square().view(num_inputs, num_random, kept[-1])
        truth = only(g, chosen)(x)
        rows = [
            _fit_one(truth[:, row], eigenpairs[row], x, active[:, row], kept, chance)
            for row in range(len(chosen))
        ]
    columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return LowRankFit(
        latents=chosen,
        ranks=torch.tensor(kept),
        num_inputs=num_inputs,
        num_active=active.sum(dim=0),
        num_random=num_random,
        **columns,
    )


def check_ranks(ranks: Sequence[int] | None, available: int) -> list[int]:
    """Return the ranks in rising order.

    Raises:
        UsageError: If one is less than 1 or more than there are pairs, or there are none.
    """
    if ranks is None:
        powers = [2**power for power in range(available.bit_length())]
        return sorted({rank for rank in [*powers, available] if rank <= available})
    kept = sorted({check_count("a rank", rank, minimum=1) for rank in ranks})
    if not kept or kept[-1] > available:
        raise UsageError(
            f"ranks={list(ranks)}, and {available} eigenpairs are at hand: decompose with a larger "
            "k, or ask for smaller ranks."
        )
    return kept


def _fit_one(
    truth: Tensor,
    pairs: EigenDecomposition,
    x: Tensor,
    active: Tensor,
    ranks: list[int],
    chance: Tensor,
) -> dict[str, Tensor]:
    """Return the row of one latent in each column of the record."""
    rest = x @ pairs.linear + pairs.constant
    last = torch.tensor(ranks) - 1

    def approximation(squares: Tensor) -> Tensor:  # (inputs, ..., k) → (inputs, ..., ranks)
        weighted = squares * pairs.eigenvalues[: squares.shape[-1]]
        sums = weighted.cumsum(dim=-1)[..., last]
        return sums + rest.view(-1, *[1] * (sums.ndim - 1))

    found = approximation((x @ pairs.eigenvectors[: ranks[-1]].T).square())
    whole, part = Agreement.of(truth, found), Agreement.of(truth[active], found[active])
    random = approximation(chance)
    null = Agreement.of(truth, random).correlation.mean(dim=0)
    null_active = Agreement.of(truth[active], random[active]).correlation
    return {
        "correlation": whole.correlation,
        "correlation_active": part.correlation,
        "r_squared": whole.r_squared,
        "r_squared_active": part.r_squared,
        "slope": whole.slope,
        "intercept": whole.intercept,
        "null_correlation": null,
        "null_correlation_active": null_active.mean(dim=0),
        "null_edge_active": null_active.quantile(EDGE, dim=0),
    }


@dataclass(frozen=True, eq=False)
class Agreement:
    """How one vector of values agrees with several approximations of it, (...) each."""

    correlation: Tensor
    r_squared: Tensor
    slope: Tensor
    intercept: Tensor

    @classmethod
    def of(cls, truth: Tensor, found: Tensor) -> Agreement:
        """Compare (n,) values with (n, ...) approximations; NaN where nothing varies."""
        if len(truth) < 2:
            gap = found.new_full(found.shape[1:], torch.nan)
            return cls(gap, gap, gap, gap)
        aligned = truth.view(-1, *[1] * (found.ndim - 1))
        centred, moved = aligned - truth.mean(), found - found.mean(dim=0)
        total, spread = centred.square().sum(dim=0), moved.square().sum(dim=0)
        together = (centred * moved).sum(dim=0)
        error = (aligned - found).square().sum(dim=0)
        slope = together / positive(spread)
        return cls(
            together / positive(total * spread).sqrt(),
            1 - error / positive(total),
            slope,
            truth.mean() - slope * found.mean(dim=0),
        )


def positive(values: Tensor) -> Tensor:
    """Return values, NaN where they are zero: what does not vary has no correlation."""
    return values.where(values > 0, torch.nan)
