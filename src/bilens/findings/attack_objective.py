"""What an attack asks for: classes, lengths, seed, and the mean margin that it lowers."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import output_form
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_count
from bilens.base.errors import UsageError
from bilens.findings.subject import SEED_LIMIT

ROWS = 4096  # inputs that are widened at a time


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """Mean and number of the training inputs of each class."""

    means: Tensor
    counts: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, num_classes: int) -> ClassMeans:
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
    """What is attacked, and how."""

    target: int | None = None
    source: int | None = None
    pairs: bool = False
    epsilons: Sequence[float] = EPSILONS
    random_perturbations: int = 3
    restarts: int = 3
    seed: int = 0

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
        if check_count("seed", self.seed, minimum=0) >= SEED_LIMIT:
            raise UsageError(f"seed must be below 2**32, got {self.seed}.")

    def objectives(self, f: QuadraticMap, means: ClassMeans) -> Iterator[Objective]:
        """Yield what is asked for, one objective after the other."""
        classes = range(f.sizes.d_out)
        for target in classes if self.target is None else (self.target,):
            if self.target is None and target == self.source:
                continue
            if self.source is None and self.pairs:
                for source in classes:
                    if source != target:
                        yield objective_of(f, means, target, source)
            else:
                yield objective_of(f, means, target, self.source)


@dataclass(frozen=True, eq=False)
class Objective:
    """The change of the mean margin by one δ added to every input, as a map of δ."""

    target: int
    source: int | None
    sources: tuple[int, ...]
    change: QuadraticMap

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
    d_out = f.sizes.d_out
    for role, chosen in (("target", target), ("source", source)):
        if chosen is not None and as_integer(chosen) not in range(d_out):
            raise UsageError(
                f"{role} is {chosen!r}; the model has classes 0 to {d_out - 1}: choose one of them."
            )
        if chosen is not None and data.counts[chosen] == 0:
            raise UsageError(
                f"the {role} class {chosen} has no training images, so its mean is not known: "
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
        raise UsageError(f"there are no training images of any class but the target {target}.")
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
