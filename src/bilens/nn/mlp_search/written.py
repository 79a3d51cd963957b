"""A tree multiplied out: one matrix for each of its leaves, and a constant."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.nn.mlp_search.expression import Applied, Leaf, Step, Total, Tree


@dataclass(frozen=True, eq=False)
class Written:
    """Σ matrix · leaf + constant.

    Attributes:
        matrices: of each leaf: (out, in), a diagonal (out,), one number (), or None, the identity.
        constant: (out,), one number () for all, or None, zero.
    """

    matrices: dict[Leaf, Tensor | None]
    constant: Tensor | None = None

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


def written(tree: Tree) -> Written:
    """Return a tree multiplied out, in float64 where weights are multiplied or added."""
    if isinstance(tree, Applied):
        return applied(tree.step, written(tree.inner))
    if isinstance(tree, Total):
        return total([written(part) for part in tree.parts])
    return Written({tree: None})


def applied(step: Step, inner: Written) -> Written:
    """Return a linear map of what is written already."""
    weight = None if step.weight is None else step.weight().detach().cpu()
    bias = None if step.bias is None else step.bias().detach().cpu()
    matrices = {leaf: product(weight, matrix) for leaf, matrix in inner.matrices.items()}
    moved = None if inner.constant is None else image(weight, inner.constant)
    return Written(matrices, added(moved, bias))


def total(parts: list[Written]) -> Written:
    """Return a sum of what is written already."""
    matrices: dict[Leaf, Tensor | None] = {}
    constant = None
    for part in parts:
        constant = added(constant, part.constant)
        for leaf, matrix in part.matrices.items():
            known = leaf in matrices
            matrices[leaf] = added_matrices(matrices[leaf], matrix) if known else matrix
    return Written(matrices, constant)


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
    """Return the sum of two constants."""
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
