"""Pairs of opposed output latents, and the product that decides between them.

An output latent is rarely decided by one product: most of what it computes is *where* it speaks
at all. The difference of two latents, read at inputs at which one of them is active, has that in
common, and leaves what decides between the two.
"""

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.gaussian import symmetric_root
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import random_frame
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_count, check_type
from bilens.base.errors import UsageError
from bilens.base.memory import check_memory
from bilens.interp.interventions import InputDirections

NEGLIGIBLE = 1e-9  # of the largest eigenvalue: rounding
LEAST_VARIANCE = 1e-6  # of the largest: directions in which inputs hardly vary have no reader


@dataclass(frozen=True, eq=False)
class ContrastRanking:
    """Pairs of output latents by how much of the difference between them is one product."""

    first: Tensor  # (num,) int64, best pair first
    second: Tensor  # (num,) int64, another output latent
    score: Tensor  # (num,), 0 … 1, falling; the product of the two shares
    nonlinear_share: Tensor
    pair_share: Tensor  # (num,), (λ₊² + λ₋²) / ‖Q‖² of the difference, whitened over these inputs


def rank_contrasts(
    g: QuadraticMap,
    inputs: Tensor,
    activations: Tensor,
    *,
    least_active: int = 50,
    memory_limit: int | str | None = None,
) -> ContrastRanking:
    """Order all pairs of output latents by how much of their difference is one product."""
    least_active = check_count("least_active", least_active, minimum=2)
    x, z = check_data(g, inputs, activations)
    alive = ((z > 0).sum(dim=0) >= least_active).nonzero()[:, 0]
    if len(alive) < 2:
        raise UsageError(
            f"{len(alive)} of {z.shape[1]} output latents are active at {least_active} of "
            f"{len(x)} inputs; two are needed: read more text, or lower least_active."
        )
    width = g.sizes.d_in
    check_memory(
        8 * (len(alive) * 6 * width * width + 6 * len(x) * (len(alive) + width)),
        f"the moments of {len(alive)} output latents",
        "rank fewer latents",
        memory_limit,
        device=g.device,
    )
    with torch.no_grad():
        g = g.detach().to(torch.float64)
        values = g(x)[:, alive]
        weights = z[:, alive] / z[:, alive].sum(dim=0)
        mean = weights.T @ x
        squares = torch.stack([(x * weights[:, a, None]).T @ x for a in range(len(alive))])
        forms = torch.stack([g.form(latent).dense() for latent in alive.tolist()])
        shares = [
            _against_later(row, x, values, weights, mean, squares, forms)
            for row in range(len(alive) - 1)
        ]
    nonlinear, pair = torch.cat(shares, dim=1)
    first, second = torch.triu_indices(len(alive), len(alive), 1)
    score = nonlinear * pair
    order = score.argsort(descending=True, stable=True)
    return ContrastRanking(
        alive[first][order], alive[second][order], score[order], nonlinear[order], pair[order]
    )


def contrast_directions(
    g: QuadraticMap, first: int, second: int, inputs: Tensor, activations: Tensor, k: int = 4
) -> InputDirections:
    """Return the leading eigen-directions of the difference between two output latents."""
    k = check_count("k", k, minimum=1)
    space, values, vectors = _whitened_eigenpairs(g, first, second, inputs, activations)
    leading = values.abs().argsort(descending=True)[:k]
    return space.directions(vectors[:, leading].T, values[leading])


def opposed_directions(
    g: QuadraticMap, first: int, second: int, inputs: Tensor, activations: Tensor
) -> InputDirections:
    """Return the eigen-directions that the pair share of `rank_contrasts` counts."""
    space, values, vectors = _whitened_eigenpairs(g, first, second, inputs, activations)
    floor = NEGLIGIBLE * values.abs().max()
    both = [len(values) - 1] * int(values[-1] > floor) + [0] * int(values[0] < -floor)
    return space.directions(vectors[:, both].T, values[both])


@dataclass(frozen=True, eq=False)
class WeightedSpace:
    """The inputs at which one of two latents is active, as mean and roots of the covariance."""

    mean: Tensor
    root: Tensor  # Σ^½
    inverse: Tensor  # Σ^{-½} where inputs vary

    def directions(self, whitened: Tensor, eigenvalues: Tensor) -> InputDirections:
        """Return orthonormal rows (k, in) of the whitened space as directions of the input."""
        return InputDirections(
            whitened @ self.inverse, whitened @ self.root, self.mean, eigenvalues
        )

    def random(self, k: int, generator: torch.Generator) -> InputDirections:
        """Return k random orthonormal directions of the whitened space: of the same norm there."""
        support = torch.linalg.matrix_rank(self.inverse, hermitian=True)
        basis = torch.linalg.eigh(self.root).eigenvectors[:, -int(support) :]
        frame = random_frame(int(support), min(k, int(support)), generator).to(basis)
        return self.directions((basis @ frame).T, frame.new_full((k,), torch.nan))


def weighted_space(
    g: QuadraticMap, first: int, second: int, inputs: Tensor, activations: Tensor
) -> WeightedSpace:
    """Return mean and covariance of the inputs, weighted by the activations of two latents."""
    x, z = check_data(g, inputs, activations)
    for latent in (first, second):
        if not 0 <= latent < z.shape[1] or float(z[:, latent].sum()) <= 0:
            raise UsageError(f"output latent {latent} does not exist, or is never active.")
    if first == second:
        raise UsageError(f"output latent {first} is given twice: a contrast needs two.")
    weight = z[:, first] / z[:, first].sum() + z[:, second] / z[:, second].sum()
    weight = weight / weight.sum()
    mean = weight @ x
    centred = x - mean
    covariance = (centred * weight[:, None]).T @ centred
    root = symmetric_root((covariance + covariance.T) / 2, g.sizes.d_in)
    values, vectors = torch.linalg.eigh(root)
    kept = values.square() > LEAST_VARIANCE * values.square().max()
    inverse = torch.where(kept, 1 / values.where(kept, 1.0), 0.0)
    return WeightedSpace(mean, root, (vectors * inverse) @ vectors.T)


def check_data(g: QuadraticMap, inputs: Tensor, activations: Tensor) -> tuple[Tensor, Tensor]:
    """Return inputs and activations, none below zero, in float64."""
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    check_shape("inputs", inputs, ("inputs", g.sizes.d_in))
    check_shape("activations", activations, (len(inputs), g.sizes.d_out))
    return inputs.detach().double(), activations.detach().double().clamp(min=0)


def _whitened_eigenpairs(
    g: QuadraticMap, first: int, second: int, inputs: Tensor, activations: Tensor
) -> tuple[WeightedSpace, Tensor, Tensor]:
    """Return eigenvalues by rising value, and eigenvectors (columns), of Σ^½ (Q_a − Q_b) Σ^½."""
    space = weighted_space(g, first, second, inputs, activations)
    with torch.no_grad():
        g = g.detach().to(torch.float64)
        form = g.form(first).dense() - g.form(second).dense()
        return space, *torch.linalg.eigh(space.root @ form @ space.root)


def _against_later(
    row: int,
    x: Tensor,
    values: Tensor,
    weights: Tensor,
    mean: Tensor,
    squares: Tensor,
    forms: Tensor,
) -> Tensor:
    """Return both shares of the pairs of one latent with all later ones, (2, later)."""
    later = slice(row + 1, None)
    # Σ ω y x, Σ ω y and Σ ω y² with ω = (ω_a + ω_b) / 2, y = g_a − g_b, for every later b
    differences = values[:, row, None] - values[:, later]
    both = (weights[:, row, None] + weights[:, later]) / 2
    weighted = both * differences
    centre, level = (mean[row] + mean[later]) / 2, weighted.sum(dim=0)
    total = (weighted * differences).sum(dim=0) - level.square()
    together = weighted.T @ x - level[:, None] * centre
    covariance = (squares[row] + squares[later]) / 2 - centre[:, :, None] * centre[:, None, :]
    spread, axes = torch.linalg.eigh(covariance)
    kept = spread > LEAST_VARIANCE * spread[:, -1:]
    along = (axes.mT @ together[:, :, None])[:, :, 0]
    explained = (along.square() / spread.where(kept, torch.inf)).sum(dim=1)
    root = (axes * spread.clamp(min=0).sqrt()[:, None, :]) @ axes.mT
    spectrum = torch.linalg.eigvalsh(root @ (forms[row] - forms[later]) @ root)
    ends = spectrum[:, -1].clamp(min=0).square() + spectrum[:, 0].clamp(max=0).square()
    norm = spectrum.square().sum(dim=1)
    nonlinear = 1 - explained / total.where(total > 0, torch.inf)
    return torch.stack(
        [nonlinear.where(total > 0, 0.0).clamp(0, 1), ends / norm.where(norm > 0, torch.inf)]
    )
