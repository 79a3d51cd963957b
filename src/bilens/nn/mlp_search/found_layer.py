"""A layer that was found inside a module: its tree, multiplied out into plain weights."""

from __future__ import annotations

from dataclasses import dataclass
from functools import reduce

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.nn.layer_view import Gives, LayerView, Reads
from bilens.nn.mlp_search.expression import (
    Applied,
    Leaf,
    Neurons,
    Source,
    Step,
    Total,
    Tree,
    steps,
    width_of,
    width_read,
)


@dataclass(frozen=True, eq=False)
class FoundLayer:
    """One layer of neurons with the linear maps around them."""

    tree: Tree  # what it gives: of its neurons and, past them, of what they read
    neurons: Neurons  # the leaf of the tree that is no source
    location: object  # where in the module its output is, as its reader writes that down
    before: FoundLayer | None  # the layer whose output it reads; None for anything else

    @property
    def source(self) -> Source:
        return self.neurons.source

    @property
    def paths(self) -> tuple[str, ...]:
        """The modules or parameters that it is made of, each once."""
        return tuple(dict.fromkeys(step.path for step in steps(self.tree) if step.path))

    @property
    def sizes(self) -> FactorSizes:
        d_out, d_hidden = width_of(self.tree), width_of(self.neurons)
        d_in = width_read(self.neurons)
        assert d_out is not None, "asked when it was found"
        assert d_hidden is not None
        assert d_in is not None
        return FactorSizes(d_out, d_hidden, d_in)

    @property
    def dtype(self) -> torch.dtype:
        weights = [step.weight() for step in steps(self.tree) if step.weight is not None]
        return reduce(torch.promote_types, [one.dtype for one in weights if one.ndim == 2])

    def view(self, name: str, reads: Reads, gives: Gives) -> LayerView:
        """Return it as a layer of a model."""
        gated, phi = self.neurons.value is not None, self.neurons.activation
        return LayerView(self.sizes, phi, self.dtype, self.read, gated, reads, gives, name=name)

    def made_of(self) -> str:
        """Return what it was found to be, in words."""
        kind = "gated" if self.neurons.value is not None else "ordinary"
        return f"{kind}, {self.neurons.activation}, made of {', '.join(self.paths)}"

    def read(self) -> Layer:
        """Return it as plain weights on the CPU; where weights are multiplied, in float64."""
        d_out, d_hidden, d_in = self.sizes
        out, gate = linearised(self.tree), linearised(self.neurons.gate)
        parts: dict[str, Tensor | None] = {
            "down": out.matrix(self.neurons, d_hidden),
            "linear": out.matrix(self.source, d_in) if self.source in out.matrices else None,
            "constant": out.shift(d_out),
        }
        if self.neurons.value is None:
            parts |= {"up": gate.matrix(self.source, d_in), "up_bias": gate.shift(d_hidden)}
        else:
            value = linearised(self.neurons.value)
            parts |= {"gate": gate.matrix(self.source, d_in), "gate_bias": gate.shift(d_hidden)}
            parts |= {"value": value.matrix(self.source, d_in), "value_bias": value.shift(d_hidden)}
        dtype = reduce(torch.promote_types, (p.dtype for p in parts.values() if p is not None))
        kept = {n: None if p is None else p.to(dtype) for n, p in parts.items()}
        kind = MLPWeights if self.neurons.value is None else GLUWeights
        return kind(**kept, activation=self.neurons.activation)  # type: ignore[arg-type]


@dataclass(frozen=True, eq=False)
class Linearised:
    """Σ matrix · leaf + constant: a tree with its linear maps multiplied out."""

    # of each leaf: (out, in), a diagonal (out,), one number (), or None, the identity
    matrices: dict[Leaf, Tensor | None]
    constant: Tensor | None = None  # (out,), one number () for all, or None, zero

    def matrix(self, leaf: Leaf, width: int) -> Tensor:
        """Return the matrix of a leaf of a width, in full."""
        found = self.matrices[leaf]
        if found is None:
            return torch.eye(width, dtype=torch.float64)
        if found.ndim == 2:
            return found
        return torch.diag(found.double().expand(width))

    def shift(self, width: int) -> Tensor | None:
        """Return the constant for every output; None for zero."""
        return None if self.constant is None else self.constant.expand(width)


def linearised(tree: Tree) -> Linearised:
    """Return a tree multiplied out, in float64 where weights are multiplied or added."""
    if isinstance(tree, Applied):
        return applied(tree.step, linearised(tree.inner))
    if isinstance(tree, Total):
        return total([linearised(part) for part in tree.parts])
    return Linearised({tree: None})


def applied(step: Step, inner: Linearised) -> Linearised:
    weight = None if step.weight is None else step.weight().detach().cpu()
    bias = None if step.bias is None else step.bias().detach().cpu()
    matrices = {leaf: product(weight, matrix) for leaf, matrix in inner.matrices.items()}
    moved = None if inner.constant is None else image(weight, inner.constant)
    return Linearised(matrices, added(moved, bias))


def total(parts: list[Linearised]) -> Linearised:
    matrices: dict[Leaf, Tensor | None] = {}
    constant = None
    for part in parts:
        constant = added(constant, part.constant)
        for leaf, matrix in part.matrices.items():
            known = leaf in matrices
            matrices[leaf] = added_matrices(matrices[leaf], matrix) if known else matrix
    return Linearised(matrices, constant)


def product(left: Tensor | None, right: Tensor | None) -> Tensor | None:
    """Return the product of two matrices, each in full, a diagonal, a number or the identity."""
    if left is None or right is None:
        return right if left is None else left
    left, right = left.double(), right.double()
    if left.ndim == 2 and right.ndim == 2:
        return left @ right
    return left[:, None] * right if (left.ndim, right.ndim) == (1, 2) else left * right


def image(weight: Tensor | None, constant: Tensor) -> Tensor:
    """Return what a matrix makes of a constant."""
    if weight is None:
        return constant
    weight, constant = weight.double(), constant.double()
    if weight.ndim == 2:
        return weight @ constant.expand(weight.shape[1])
    return weight * constant


def added(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if first is None or second is None:
        return second if first is None else first
    return first.double() + second.double()


def added_matrices(first: Tensor | None, second: Tensor | None) -> Tensor:
    """Return the sum of two matrices of a leaf, as far as it can be written without its width."""
    one = torch.ones((), dtype=torch.float64)
    left, right = (one if part is None else part.double() for part in (first, second))
    if left.ndim == 2 and right.ndim < 2:
        left, right = right, left
    if right.ndim == 2 and left.ndim < 2:
        return right + torch.diag(left.expand(len(right)))
    return left + right
