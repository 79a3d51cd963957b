"""An output latent as few eigenpairs, or as few input latents, and how far these predict it."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.interactions.feature_factors import check_dictionary, interaction_submatrix
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import random_frame
from bilens.algebra.shapes import check_index, check_shape
from bilens.base.checks import check_count, check_float_tensor, check_type
from bilens.base.errors import ShapeError

EDGE = 0.95  # of the random forms


@dataclass(frozen=True, eq=False)
class LowRankFit:
    """How well the k leading eigenpairs of an output latent predict it, on data."""

    ranks: Tensor  # (r,) int64, the numbers of eigenpairs k
    num_inputs: int
    num_active: Tensor  # (num,) int64, how many of them activate the latent
    correlation: Tensor  # (num, r), Pearson, all inputs
    correlation_active: Tensor  # (num, r), Pearson, inputs at which the latent is active
    r_squared: Tensor  # (num, r), 1 − Σ(truth − approximation)² / Σ(truth − mean)², all inputs
    r_squared_active: Tensor  # (num, r), the same over active inputs
    slope: Tensor  # (num, r), of the line truth ≈ slope · approximation + intercept
    intercept: Tensor  # (num, r), in units of the output; 0 is calibrated
    null_correlation: Tensor  # (num, r), mean over random forms of the same eigenvalues
    null_correlation_active: Tensor  # (num, r), the same over active inputs
    null_edge_active: Tensor  # (num, r), 95 % quantile of the latter
    num_random: int


def low_rank_fit(
    g: QuadraticMap,
    eigenpairs: EigenDecomposition,
    inputs: Tensor,
    active: Tensor,
    generator: torch.Generator,
    *,
    num_random: int = 20,
) -> LowRankFit:
    """Compare output latents with their k leading eigenpairs, for several k."""
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    num_random = check_count("num_random", num_random, minimum=1)
    num_latents = g.sizes.d_out
    num_inputs, width = check_float_tensor("inputs", inputs, num_axes=2)
    if eigenpairs.eigenvectors.shape[::2] != (num_latents, width) or width != g.sizes.d_in:
        raise ShapeError(
            f"eigenpairs hold vectors of shape {tuple(eigenpairs.eigenvectors.shape)}, inputs have "
            f"{width} entries and the map reads {g.sizes.d_in}: one form for each of the "
            f"{num_latents} latents, in the basis of the inputs, was expected."
        )
    if active.shape != (num_inputs, num_latents) or active.dtype != torch.bool:
        raise ShapeError(
            f"active holds {active.dtype} in shape {tuple(active.shape)}; expected bool "
            f"({num_inputs}, {num_latents}): activations > 0 of each latent."
        )
    eigenpairs.check_usable()
    available = eigenpairs.eigenvalues.shape[-1]
    kept = sorted({*(2**power for power in range(available.bit_length())), available})
    with torch.no_grad():
        x = inputs.detach().double()
        g = g.detach().to(torch.float64)
        frames = torch.stack(
            [random_frame(width, kept[-1], generator).T for _ in range(num_random)]
        ).to(x)
        null_squares = (x @ frames.flatten(0, 1).T).square().view(num_inputs, num_random, kept[-1])
        truth = g(x)
        rows = [
            fit_one(truth[:, row], eigenpairs[row], x, active[:, row], kept, null_squares)
            for row in range(num_latents)
        ]
    columns = {name: torch.stack([row[name] for row in rows]) for name in rows[0]}
    return LowRankFit(
        ranks=torch.tensor(kept),
        num_inputs=num_inputs,
        num_active=active.sum(dim=0),
        num_random=num_random,
        **columns,
    )


def fit_one(
    truth: Tensor,
    pairs: EigenDecomposition,
    x: Tensor,
    active: Tensor,
    ranks: list[int],
    null_squares: Tensor,
) -> dict[str, Tensor]:
    """Return the row of one latent in each column of the record."""
    rest = x @ pairs.linear + pairs.constant
    last = torch.tensor(ranks) - 1

    def approximation(squares: Tensor) -> Tensor:  # (inputs, ..., k) → (inputs, ..., ranks)
        weighted = squares * pairs.eigenvalues[: squares.shape[-1]]
        sums = weighted.cumsum(dim=-1)[..., last]
        return sums + rest.view(-1, *[1] * (sums.ndim - 1))

    found = approximation((x @ pairs.eigenvectors[: ranks[-1]].T).square())
    whole = ApproximationScore.compare(truth, found)
    part = ApproximationScore.compare(truth[active], found[active])
    random = approximation(null_squares)
    null = ApproximationScore.compare(truth, random).correlation.mean(dim=0)
    null_active = ApproximationScore.compare(truth[active], random[active]).correlation
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
class ApproximationScore:
    """How one vector of values agrees with several approximations of it, (...) each."""

    correlation: Tensor
    r_squared: Tensor
    slope: Tensor
    intercept: Tensor

    @classmethod
    def compare(cls, truth: Tensor, found: Tensor) -> ApproximationScore:
        """Compare (n,) values with (n, ...) approximations; NaN where nothing varies."""
        if len(truth) < 2:
            gap = found.new_full(found.shape[1:], torch.nan)
            return cls(gap, gap, gap, gap)
        aligned = truth.view(-1, *[1] * (found.ndim - 1))
        centred, moved = aligned - truth.mean(), found - found.mean(dim=0)
        total, spread = variation(centred, aligned), variation(moved, found)
        together = (centred * moved).sum(dim=0)
        error = (aligned - found).square().sum(dim=0)
        slope = together / positive(spread)
        return cls(
            together / positive(total * spread).sqrt(),
            1 - error / positive(total),
            slope,
            truth.mean() - slope * found.mean(dim=0),
        )


def variation(deviations: Tensor, values: Tensor) -> Tensor:
    """Return Σ deviations²; 0 where that is what rounding of the mean leaves of equal values."""
    squares = deviations.square().sum(dim=0)
    rounding = (64 * torch.finfo(values.dtype).eps) ** 2 * values.square().sum(dim=0)
    return squares.where(squares > rounding, 0.0)


def positive(values: Tensor) -> Tensor:
    """Return values, NaN where they are zero: what does not vary has no correlation."""
    return values.where(values > 0, torch.nan)


@dataclass(frozen=True, eq=False)
class LatentCircuit:
    output: int
    features: Tensor  # (n,) int64, input latents by falling share
    matrix: Tensor  # (n, n), S[m, n] between them; the coefficient of z_m z_n is twice the entry
    linear: Tensor  # (n,), coefficient of z_m, from the decoder's bias
    constant: float
    eigenvalues: Tensor  # (k,), of the whole form in the input basis, by falling size
    projections: Tensor  # (n, k), v_i·d_m: column i is the input latents seen along eigenvector i
    share_of_norm: float  # of ‖S‖_F²
    share_of_variance: float  # of the latent at Dz + b, over data; NaN where it does not vary
    correlation: float


def find_circuit(
    g: QuadraticMap,
    dictionary: Tensor,
    output: int,
    eigenpairs: EigenDecomposition,
    *,
    bias: Tensor,
    activations: Tensor,
    num_features: int = 10,
) -> LatentCircuit:
    """Return the input latents that matter most for an output latent, and how they build it."""
    features = check_dictionary(g, dictionary)
    num = min(check_count("num_features", num_features, minimum=1), features)
    check_index("output", output, g.sizes.d_out)
    if eigenpairs.eigenvalues.ndim != 1:
        raise ShapeError("find_circuit works on one output: pass eigenpairs[c].")
    check_shape("activations", activations, ("inputs", features))
    with torch.no_grad():
        form = g.detach().to(torch.float64).form(output)
        columns = dictionary.detach().double()
        shift = bias.detach().double()
        linear = columns.T @ (form.linear + 2 * form.matvec(shift))
        constant = float(form(shift))
        matrix = form.dense()
        z = activations.detach().double()
        # the mean of |z_m (Sz + linear)_m|: what a feature adds where it is active
        field = (z @ columns.T) @ matrix @ columns + linear
        importance = (z * field).abs().mean(dim=0)
        order = importance.argsort(descending=True, stable=True)[:num]
        block = interaction_submatrix(g, dictionary, output, order)
        reached = matrix @ columns
        whole = ((columns @ columns.T @ reached) * reached).sum()  # ‖DᵀQD‖², without that matrix
        truth, part = form(z @ columns.T + shift), z[:, order]
        found = ((part @ block) * part).sum(dim=1) + part @ linear[order] + constant
        share_of_variance, correlation = explained_share(truth, found)
    return LatentCircuit(
        output=output,
        features=order,
        matrix=block,
        linear=linear[order],
        constant=constant,
        eigenvalues=eigenpairs.eigenvalues,
        projections=columns[:, order].T @ eigenpairs.eigenvectors.T,
        share_of_norm=float(block.square().sum() / whole) if float(whole) > 0 else 0.0,
        share_of_variance=share_of_variance,
        correlation=correlation,
    )


def explained_share(truth: Tensor, found: Tensor) -> tuple[float, float]:
    """Return 1 − Var(truth − found) / Var(truth), and the correlation; NaN where nothing varies."""
    rest, total = (truth - found).var(correction=0), truth.var(correction=0)
    share = 1 - rest / total if float(total) > 0 else torch.tensor(torch.nan)
    return float(share), float(ApproximationScore.compare(truth, found).correlation)
