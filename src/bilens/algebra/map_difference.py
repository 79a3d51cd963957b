"""The difference of two quadratic maps, without what they share."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.similarity import check_comparable


def map_difference(f: QuadraticMap, g: QuadraticMap) -> QuadraticMap:
    """Return x ↦ g(x) − f(x) as a map of its own, in float64.

    Nothing is subtracted but weights from weights: where f and g have as many neurons, these are
    paired one to one, and the factors of the difference shrink with it, so that what is read from
    them is accurate however small it is. A neuron that is the same in both leaves none behind.

    Math: D'(L'∘R') − D(L∘R) = (D'−D)(L'∘R') + D((L'−L)∘R') + D(L∘(R'−R)), primes for g: up to
        3 · hidden neurons. Where the numbers of neurons differ, those of both side by side.
    Cost: O(hidden · (in + out)).

    Args:
        f: the map before.
        g: the map after.

    Raises:
        UsageError: If one is no map, or they read different bases.
        ShapeError: If they differ in inputs or outputs.
    """
    check_comparable(f, g)
    old, new = (one.detach().to(torch.float64) for one in (f, g))
    before, after = old.tensor, new.tensor
    if before.sizes == after.sizes:
        parts = [
            (after.down - before.down, after.left, after.right),
            (before.down, after.left - before.left, after.right),
            (before.down, before.left, after.right - before.right),
        ]
    else:
        parts = [
            (after.down, after.left, after.right),
            (-before.down, before.left, before.right),
        ]
    tensor = side_by_side(
        [part for down, left, right in parts if (part := alive(down, left, right))]
    )
    if tensor is None:
        tensor = BilinearTensor(
            before.down.new_zeros(before.sizes.d_out, 1),
            *[before.left.new_zeros(1, before.sizes.d_in)] * 2,
        )
    return QuadraticMap(
        tensor,
        minus(new.linear, old.linear),
        minus(new.constant, old.constant),
        f.basis,
    )


def alive(down: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the neurons that do anything; None where there is none."""
    kept = (down != 0).any(dim=0) & (left != 0).any(dim=1) & (right != 0).any(dim=1)
    if not bool(kept.any()):
        return None
    return down[:, kept], left[kept], right[kept]


def side_by_side(parts: list[tuple[Tensor, Tensor, Tensor]]) -> BilinearTensor | None:
    """Return the sum of several tensors; None where there is none."""
    if not parts:
        return None
    down, left, right = zip(*parts, strict=True)
    return BilinearTensor(torch.cat(down, dim=1), torch.cat(left), torch.cat(right))


def minus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    """Return first − second, where None is zero."""
    if second is None:
        return first
    return -second if first is None else first - second
