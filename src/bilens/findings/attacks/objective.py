"""What a universal attack lowers: the mean margin of some classes over a target."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.directions import output_form
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer
from bilens.base.errors import UsageError
from bilens.findings.attacks.class_means import ClassMeans


@dataclass(frozen=True, eq=False)
class Objective:
    """The change of the mean margin by one δ added to every input, as a map of δ.

    Attributes:
        target: the class that should win.
        source: the class that should lose; None for every other class.
        sources: the classes that should lose.
        change: δ ↦ (δᵀĀδ + ḡ·δ, 0), (in) → (2): output 0 is the change, output 1 is zero.
    """

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
    """Return the objective of one source class, or of every other class.

    Math: over the inputs x of the source classes y, E[m_y(x + δ) − m_y(x)] = δᵀĀδ + ḡ·δ with
        m_y = f_y − f_target, Ā = Σ_y w_y (Q_y − Q_target) and ḡ = Σ_y w_y (2 (Q_y − Q_target) μ_y
        + b_y − b_target), w_y the share of class y among them: quadratic again, whatever the data.
    Cost: O(classes² · hidden + classes · out · hidden · in).

    Args:
        f: the map, float64.
        data: means and numbers of the inputs.
        target: the class that should win.
        source: the class that should lose; None for all others, by their number of inputs.

    Raises:
        UsageError: If a class does not exist, has no inputs, or source is target.
    """
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
    """Return Q_c v for every output and vector, (num, in) → (num, out, in), float64.

    Cost: O(num · out · hidden · in).
    """
    forms = [output_form(f, output) for output in range(f.sizes.d_out)]
    return torch.stack([form.matvec(vectors) for form in forms], dim=1)
