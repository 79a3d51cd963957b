"""Universal perturbations: the mean margin they lower, the optimal ones, and controls."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import output_form, outputs_of
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_count
from bilens.base.errors import UsageError
from bilens.base.option_rules import check_seed
from bilens.certify.contrast import universal_perturbation
from bilens.nn import BilinearClassifier

ROWS = 4096  # inputs that are widened at a time


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """Mean and number of the training inputs of each class; float64."""

    means: Tensor  # (classes, in); zeros for a class without inputs
    counts: Tensor  # (classes,)

    @classmethod
    def from_images(cls, images: Tensor, labels: Tensor, num_classes: int) -> ClassMeans:
        """Return the means of inputs (num, in) with labels (num,), summed in float64."""
        sums = torch.zeros(num_classes, images.shape[1], dtype=torch.float64)
        for start in range(0, len(images), ROWS):
            rows = slice(start, start + ROWS)
            sums.index_add_(0, labels[rows], images[rows].double())
        counts = torch.bincount(labels, minlength=num_classes).double()
        return cls(sums / counts.clamp(min=1)[:, None], counts)

    @property
    def overall(self) -> Tensor:
        """The mean of all inputs, (in,)."""
        return self.counts @ self.means / self.counts.sum()


# 4.2 is the paper's perturbation of standard deviation 0.15 at 784 pixels, 8.4 that of 0.30.
EPSILONS = (0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.2, 6.0, 8.4)


@dataclass(frozen=True)
class AttackRequest:
    """The classes to attack, the lengths and numbers of perturbations, and the seed."""

    target: int | None = None  # the class that should win; None for every class in turn
    source: int | None = None  # the class that should lose; None for every other
    pairs: bool = False  # each source class is attacked with a perturbation of its own
    epsilons: Sequence[float] = EPSILONS  # ‖δ‖₂ in units of a pixel's range; sorted, no doubles
    random_perturbations: int = 3  # of each method
    restarts: int = 3  # descents of the projected gradient, for each length
    seed: int = 0  # of the random perturbations and of the starting points

    def __post_init__(self) -> None:
        lengths = [float(epsilon) for epsilon in self.epsilons]
        if not lengths or not all(math.isfinite(length) and length >= 0 for length in lengths):
            raise UsageError(
                f"epsilon must be one or several finite numbers of at least 0, got {lengths}: "
                "it is the length of the perturbation, 0 changes nothing."
            )
        object.__setattr__(self, "epsilons", tuple(sorted({*lengths})))
        check_count("random_perturbations", self.random_perturbations, minimum=1)
        check_count("restarts", self.restarts, minimum=1)
        check_seed(self.seed)

    def objectives(self, f: QuadraticMap, means: ClassMeans) -> Iterator[Objective]:
        classes = range(f.sizes.d_out)
        one_by_one = self.source is None and self.pairs
        for target in classes if self.target is None else (self.target,):
            for source in classes if one_by_one else (self.source,):
                if source == target and (one_by_one or self.target is None):
                    continue  # only where both were asked for, it is refused
                yield objective_of(f, means, target, source)


@dataclass(frozen=True, eq=False)
class Objective:
    """The change of the mean margin by one δ added to every input, as a map of δ."""

    target: int  # the class that should win
    source: int | None  # the class that should lose; None for every other class
    sources: tuple[int, ...]  # the classes that should lose
    change: QuadraticMap  # δ ↦ (δᵀĀδ + ḡ·δ, 0), (in) → (2): the change, and zero

    @property
    def gradient(self) -> Tensor:
        """ḡ, (in,): how the mean margin begins to change."""
        assert self.change.linear is not None, "given in objective_of"
        return self.change.linear[0]

    def changes(self, deltas: Tensor) -> Tensor:
        """Return the change of the mean margin for each row, (num, in) → (num,)."""
        return self.change(deltas)[:, 0]

    def on(self, inputs: Tensor) -> Objective:
        """Return the same for a δ that is zero outside some inputs, (kept,) indices."""
        tensor = self.change.tensor
        narrow = BilinearTensor(tensor.down, tensor.left[:, inputs], tensor.right[:, inputs])
        assert self.change.linear is not None, "given in objective_of"
        change = QuadraticMap(narrow, self.change.linear[:, inputs])
        return replace(self, change=change)


def objective_of(
    f: QuadraticMap, data: ClassMeans, target: int, source: int | None = None
) -> Objective:
    """Return the objective of one source class, or of every other class."""
    # Over the inputs x of the source classes y, E[m_y(x + δ) − m_y(x)] = δᵀĀδ + ḡ·δ with
    # m_y = f_y − f_target, Ā = Σ_y w_y (Q_y − Q_target) and ḡ = Σ_y w_y (2 (Q_y − Q_target) μ_y
    # + b_y − b_target), w_y the share of class y among them: quadratic again, whatever the data.
    d_out = f.sizes.d_out
    for role, chosen in (("target", target), ("source", source)):
        if chosen is not None and as_integer(chosen) not in range(d_out):
            raise UsageError(
                f"{role} is {chosen!r}; the model has classes 0 to {d_out - 1}: choose one of them."
            )
        if chosen is not None and data.counts[chosen] == 0:
            raise UsageError(
                f"the {role} class {chosen} has no inputs to make it from, so no mean is known: "
                "choose another class, or data that have it."
            )
    if source == target:
        raise UsageError(
            f"source and target are both {target}: an attack leads from one class to another."
        )
    weights = data.counts.clone() if source is None else torch.zeros_like(data.counts)
    weights[target] = 0
    if source is not None:
        weights[source] = 1
    if not bool(weights.any()):
        raise UsageError(f"there are no inputs to make it from but of the target {target}.")
    weights = weights / weights.sum()
    direction = weights.clone()
    direction[target] = -1
    products = products_of(f, data.means)  # (classes, out, in): Q_c μ_y
    own = products[torch.arange(d_out), torch.arange(d_out)]
    gradient = 2 * (weights @ (own - products[:, target]))
    if f.linear is not None:
        gradient = gradient + direction @ f.linear
    down = torch.stack([direction @ f.tensor.down, torch.zeros_like(f.tensor.down[0])])
    change = QuadraticMap(
        BilinearTensor(down, f.tensor.left, f.tensor.right),
        torch.stack([gradient, torch.zeros_like(gradient)]),
    )
    sources = tuple(torch.nonzero(weights).flatten().tolist())
    return Objective(target, source, sources, change)


def products_of(f: QuadraticMap, vectors: Tensor) -> Tensor:
    """Return Q_c v for every output and vector, (num, in) → (num, out, in), float64."""
    forms = [output_form(f, output) for output in range(f.sizes.d_out)]
    return torch.stack([form.matvec(vectors) for form in forms], dim=1)


OPTIMAL, PUBLISHED, PIXEL_SPACE, RANDOM = "optimal", "published", "pixel_space", "random"
OPTIMAL_EDGE = "optimal_edge"
MEAN_DIFFERENCE, PROJECTED_GRADIENT = "mean_difference", "projected_gradient"
# The kinds in the order in which they are shown, and what of model and data each one reads. What
# starts from weights alone takes its sign from the class means: v and −v are one eigenvector.
READS: dict[str, tuple[str, ...]] = {
    OPTIMAL: ("weights", "class_means"),
    PUBLISHED: ("weights", "class_means"),
    PIXEL_SPACE: ("weights", "class_means"),
    RANDOM: ("weights", "class_means"),
    MEAN_DIFFERENCE: ("class_means",),
    PROJECTED_GRADIENT: ("weights", "inputs"),
}
# those that change edge pixels alone
EDGE = [f"{kind}_edge" for kind in (OPTIMAL, PUBLISHED, PIXEL_SPACE, RANDOM)]
READS |= dict.fromkeys(EDGE, ("weights", "class_means", "mean_image"))
EDGE_INTENSITY = 0.01  # mean of a pixel below which it is at the edge


@dataclass(frozen=True, eq=False)
class Perturbation:
    kind: str  # one of READS
    member: int  # counted from 1 within its kind: the eigenvector, or the random draw
    deltas: Tensor  # (epsilons, in), what is added to every input; ‖deltas[i]‖ ≤ epsilons[i]


def scale_direction(
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
    # |F(δ)| · exp(i arg F(noise)), transformed back: the phases of white noise are uniform but for
    # the symmetry that a real image needs. By Parseval the norm is that of δ.
    noise = torch.randn(shape, generator=generator, dtype=torch.float64)
    spectrum = torch.fft.fft2(perturbation.reshape(shape)).abs()
    phases = torch.fft.fft2(noise).angle()
    image: Tensor = torch.fft.ifft2(torch.polar(spectrum, phases)).real
    return image.flatten()


PER_CLASS = 10  # most positive eigenvectors of each class that are inverted together
USED = 3  # of them, for the perturbations of a target


def published_keys(module: BilinearClassifier) -> Tensor:
    """Return the keys of the paper in pixels, (classes, USED, in): raw forms, embedding basis."""
    # V holds the PER_CLASS most positive eigenvectors of every class in the embedding basis, one a
    # row; the key of eigenvector r of class c is W_eᵀ (column (c, r) of V⁺). Behind the embedding
    # it acts through W_e W_eᵀ, so that V W_e (W_eᵀ V⁺) is not the identity.
    return keys(module.quadratic_map("embedding").detach()) @ module.embed.weight.detach()


def pixel_space_keys(module: BilinearClassifier) -> Tensor:
    """Return keys of class-centred forms in the input basis: V V⁺ = 1 where V has full row rank."""
    return keys(outputs_of(module.quadratic_map().detach(), centred=True))


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

    perturbation: Perturbation  # of the kind "optimal" or "optimal_edge"
    lower: Tensor  # (epsilons,), the proven bound of the change, not positive


def optimum(objective: Objective, epsilons: Tensor, edge: Tensor | None = None) -> Optimum:
    """Return the optimal perturbation at each length."""
    change = objective.change if edge is None else objective.on(edge).change
    zero = torch.zeros(change.sizes.d_in, dtype=torch.float64)
    found = universal_perturbation(change, zero, 0, 1, epsilons)
    if edge is None:
        return Optimum(Perturbation(OPTIMAL, 1, found.delta), found.lower)
    deltas = torch.zeros(len(epsilons), objective.change.sizes.d_in, dtype=torch.float64)
    deltas[:, edge] = found.delta
    return Optimum(Perturbation(OPTIMAL_EDGE, 1, deltas), found.lower)


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
    """The means, published keys and edge pixels from which perturbations are made."""

    means: ClassMeans  # of the inputs that they are made from
    published: Tensor  # keys in pixels, (classes, used, in)
    pixel_space: Tensor  # the same, from pixel-space vectors
    edge: Tensor  # indices of the edge pixels, (kept,)
    shape: tuple[int, int]  # rows and columns of an image
    request: AttackRequest  # lengths, numbers of perturbations, seed

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

    def controls(self, objective: Objective) -> list[Perturbation]:
        generator = torch.Generator().manual_seed(self.request.seed)
        published, pixel_space = (
            keys[objective.target] for keys in (self.published, self.pixel_space)
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
        }
        for kind in (PUBLISHED, PIXEL_SPACE, RANDOM):
            directions[f"{kind}_edge"] = [only(one, self.edge) for one in directions[kind]]
        found = [
            scale_direction(kind, member, direction, objective, self.lengths)
            for kind, members in directions.items()
            for member, direction in enumerate(members, 1)
        ]
        descent = projected_gradient(objective, self.lengths, generator, self.request.restarts)
        return [*filter(None, found), Perturbation(PROJECTED_GRADIENT, 1, descent)]
