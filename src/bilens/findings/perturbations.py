"""Perturbation methods: what an attack adds to every input, at each length of a grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.directions import outputs_of
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.certify.contrast import universal_perturbation
from bilens.findings.attack_objective import AttackRequest, ClassMeans, Objective
from bilens.nn import BilinearClassifier

OPTIMAL, OPTIMAL_EDGE = "optimal", "optimal_edge"
PUBLISHED, PUBLISHED_EDGE = "published", "published_edge"
PIXEL_SPACE, PIXEL_SPACE_EDGE = "pixel_space", "pixel_space_edge"
RANDOM, RANDOM_EDGE = "random", "random_edge"
MEAN_DIFFERENCE, PROJECTED_GRADIENT = "mean_difference", "projected_gradient"
# The kinds in the order in which they are shown, and what of model and data each one reads. What
# starts from weights alone takes its sign from the class means: v and −v are one eigenvector.
READS: dict[str, tuple[str, ...]] = {
    OPTIMAL: ("weights", "class_means"),
    PUBLISHED: ("weights", "class_means"),
    PIXEL_SPACE: ("weights", "class_means"),
    RANDOM: ("weights", "class_means"),
    MEAN_DIFFERENCE: ("class_means",),
    PROJECTED_GRADIENT: ("weights", "training_images"),
    OPTIMAL_EDGE: ("weights", "class_means", "mean_image"),
    PUBLISHED_EDGE: ("weights", "class_means", "mean_image"),
    PIXEL_SPACE_EDGE: ("weights", "class_means", "mean_image"),
    RANDOM_EDGE: ("weights", "class_means", "mean_image"),
}
EDGE = {OPTIMAL_EDGE, PUBLISHED_EDGE, PIXEL_SPACE_EDGE, RANDOM_EDGE}  # change edge pixels alone
EDGE_INTENSITY = 0.01  # mean of a pixel over the training images below which it is at the edge


@dataclass(frozen=True, eq=False)
class Perturbation:
    """One attack."""

    kind: str
    member: int
    deltas: Tensor


def scaled(
    kind: str, member: int, direction: Tensor, objective: Objective, epsilons: Tensor
) -> Perturbation | None:
    """Return a direction at each length, with the sign that lowers the mean margin more."""
    length = float(direction.norm())
    if length == 0:
        return None
    sign = -1.0 if float(objective.gradient @ direction) > 0 else 1.0
    return Perturbation(kind, member, epsilons[:, None] * (sign * direction / length))


def at_edge(mean_image: Tensor) -> Tensor:
    """Return the indices of the pixels that are almost always dark, (kept,)."""
    return torch.nonzero(mean_image < EDGE_INTENSITY).flatten()


def only(direction: Tensor, inputs: Tensor) -> Tensor:
    """Return a direction that is zero outside some inputs."""
    kept = torch.zeros_like(direction)
    kept[inputs] = direction[inputs]
    return kept


def mean_difference(data: ClassMeans, objective: Objective) -> Tensor:
    """Return the mean of the target less the mean of the sources, (in,)."""
    sources = list(objective.sources)
    weights = data.counts[sources] / data.counts[sources].sum()
    return data.means[objective.target] - weights @ data.means[sources]


def random_phases(
    perturbation: Tensor, shape: tuple[int, int], generator: torch.Generator
) -> Tensor:
    """Return a random real image with the power spectrum of δ, (in,): as long, as smooth."""
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.fft2(perturbation.reshape(shape)).abs()
    phases = torch.fft.fft2(noise).angle()
    image: Tensor = torch.fft.ifft2(torch.polar(spectrum, phases)).real
    return image.flatten()


PER_CLASS = 10  # most positive eigenvectors of each class that are inverted together
USED = 3  # of them, for the perturbations of a target


def published_keys(module: BilinearClassifier) -> Tensor:
    """Return the keys of the paper in pixels, (classes, USED, in): raw forms, embedding basis."""
    f = module.quadratic_map("embedding").detach()
    return keys(f) @ module.embed.weight.detach()


def pixel_space_keys(module: BilinearClassifier) -> Tensor:
    """Return keys in pixels, (classes, USED, in), that keep V V⁺ = 1 where V has full row rank."""
    f = module.quadratic_map().detach()
    return keys(outputs_of(f, centred=True))


def keys(f: QuadraticMap) -> Tensor:
    """Return the first columns of the pseudo-inverse for each output, (out, USED, in)."""
    eigs = eigendecompose_all(f, None, min(PER_CLASS, f.sizes.d_in), "largest")
    eigs.check_usable()
    classes, k, width = eigs.eigenvectors.shape
    inverse: Tensor = torch.linalg.pinv(eigs.eigenvectors.reshape(classes * k, width))
    return inverse.T.reshape(classes, k, width)[:, :USED]


@dataclass(frozen=True, eq=False)
class Optimum:
    """A perturbation and its proof: no δ of a length lowers the mean margin more than `lower`."""

    perturbation: Perturbation
    lower: Tensor


def optimum(objective: Objective, epsilons: Tensor, edge: Tensor | None = None) -> Optimum:
    """Return the optimal perturbation at each length."""
    allowed = objective if edge is None else objective.on(edge)
    change = allowed.change
    zero = torch.zeros(change.sizes.d_in, dtype=torch.float64)
    found = universal_perturbation(change, zero, 0, 1, epsilons)
    deltas = found.delta
    if edge is not None:
        deltas = torch.zeros(len(epsilons), objective.change.sizes.d_in, dtype=torch.float64)
        deltas[:, edge] = found.delta
    return Optimum(Perturbation(OPTIMAL if edge is None else OPTIMAL_EDGE, 1, deltas), found.lower)


STEPS = 200
STRIDE = 0.25  # length of a step in units of ε; at a twentieth the end is 2 % off


def projected_gradient(
    objective: Objective, epsilons: Tensor, generator: torch.Generator, restarts: int
) -> Tensor:
    """Return the best end of several descents at each length, (epsilons, in)."""
    form = objective.change.form(torch.tensor([1.0, 0.0], dtype=torch.float64))
    radius = epsilons.repeat_interleave(restarts)[:, None]
    size = (len(radius), form.d_in)
    start = torch.randn(size, generator=generator, dtype=torch.float64)
    delta = radius * start / start.norm(dim=1, keepdim=True)
    for _ in range(STEPS):
        gradient = 2 * form.matvec(delta) + form.linear
        length = gradient.norm(dim=1, keepdim=True)
        step = torch.where(length > 0, gradient / length, 0.0)
        delta = delta - STRIDE * radius * step
        length = delta.norm(dim=1, keepdim=True)
        delta = delta * torch.where(length > radius, radius / length, 1.0)
    ends = delta.reshape(len(epsilons), restarts, -1)
    best = objective.changes(delta).reshape(len(epsilons), restarts).argmin(dim=1)
    chosen: Tensor = ends[torch.arange(len(epsilons)), best]
    return chosen


@dataclass(frozen=True, eq=False)
class PerturbationMethods:
    """What the perturbations of every objective are made of."""

    means: ClassMeans
    published: Tensor
    pixel_space: Tensor
    edge: Tensor
    shape: tuple[int, int]
    request: AttackRequest

    @property
    def lengths(self) -> Tensor:
        """(epsilons,) float64."""
        return torch.tensor(self.request.epsilons, dtype=torch.float64)

    def optima(self, objective: Objective) -> list[Optimum]:
        """Return the optimal perturbation and, where there are edge pixels, that of the edge."""
        found = [optimum(objective, self.lengths)]
        if len(self.edge) > 0:
            found.append(optimum(objective, self.lengths, self.edge))
        return found

    def others(self, objective: Objective) -> list[Perturbation]:
        """Return the perturbations that are not optimal."""
        generator = torch.Generator().manual_seed(self.request.seed)
        published, pixel_space = (
            self.published[objective.target],
            self.pixel_space[objective.target],
        )
        noises = [
            random_phases(published[0], self.shape, generator)
            for _ in range(self.request.random_perturbations)
        ]
        directions: dict[str, Sequence[Tensor] | Tensor] = {
            PUBLISHED: published,
            PIXEL_SPACE: pixel_space,
            RANDOM: noises,
            MEAN_DIFFERENCE: [mean_difference(self.means, objective)],
            PUBLISHED_EDGE: [only(key, self.edge) for key in published],
            PIXEL_SPACE_EDGE: [only(key, self.edge) for key in pixel_space],
            RANDOM_EDGE: [only(noise, self.edge) for noise in noises],
        }
        perturbations = [
            scaled(kind, member, direction, objective, self.lengths)
            for kind, members in directions.items()
            for member, direction in enumerate(members, 1)
        ]
        descent = projected_gradient(objective, self.lengths, generator, self.request.restarts)
        return [
            *(perturbation for perturbation in perturbations if perturbation),
            Perturbation(PROJECTED_GRADIENT, 1, descent),
        ]
