"""Which neurons of two maps are the same ones, however order and scale of their branches are."""

import math

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap


def with_paired_neurons(f: QuadraticMap, g: QuadraticMap) -> tuple[QuadraticMap, bool]:
    """Return f with its neurons in the order and scale of g's, where they are nearer to them so.

    Also whether that is another way of writing f. Neurons of other numbers stay as they are.

    Cost: O(hidden · (in + out)).
    """
    old, new = (one.detach().to(torch.float64).tensor for one in (f, g))
    least = neuron_gap(old, new)
    if old.sizes != new.sizes or least == 0:
        return f, False
    generator = torch.Generator().manual_seed(0)
    probes = [torch.randn(size, generator=generator).to(old.down) for size in old.sizes[::2]]
    (before, key), (after, place) = (balanced(one, *probes) for one in (old, new))
    best, order = None, torch.empty_like(key.argsort())
    order[place.argsort()] = key.argsort()
    for at in (torch.arange(len(key)).to(order), order):
        down, left, right = before.down[:, at], before.left[at], before.right[at]
        found = BilinearTensor(down, left, right)
        if (gap := neuron_gap(found, after)) < least / 4:
            best, least = found, gap
    if best is None:
        return f, False
    # back into the scale and order of branches that g has, where a small change stays small
    swapped, lefts, rights = as_written(new, probes[1])
    left = torch.where(swapped, best.right, best.left) * lefts
    right = torch.where(swapped, best.left, best.right) * rights
    tensor = BilinearTensor(best.down / (lefts * rights)[:, 0], left, right)
    linear, constant = (
        None if part is None else part.detach().double() for part in (f.linear, f.constant)
    )
    return QuadraticMap(tensor, linear, constant, f.basis), True


def as_written(tensor: BilinearTensor, probe: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return which neurons have their branches swapped, and the signed length of each branch."""
    sides = []
    for branch in (tensor.left, tensor.right):
        size, along = branch.norm(dim=1), branch @ probe
        length = torch.where(size > 0, size, 1.0) * torch.where(along < 0, -1.0, 1.0)
        sides.append((length[:, None], along / length))
    (left, first), (right, second) = sides
    return (first < second)[:, None], left, right


def balanced(
    tensor: BilinearTensor, probe_out: Tensor, probe: Tensor
) -> tuple[BilinearTensor, Tensor]:
    """Return neurons whose branches have length 1, and a number of each that tells it from others.

    It does not depend on how a neuron is written: order, scale and sign of its branches.
    """
    swapped, left, right = as_written(tensor, probe)
    one, other = tensor.left / left, tensor.right / right
    first, second = torch.where(swapped, other, one), torch.where(swapped, one, other)
    down = tensor.down * (left * right)[:, 0]
    key = first @ probe + 0.7 * (second @ probe) + 0.3 * (probe_out @ down) / down.norm()
    return BilinearTensor(down, first, second), key


def neuron_gap(one: BilinearTensor, other: BilinearTensor) -> float:
    """Return how far neurons are apart, paired by place, relative to their size."""
    if one.sizes != other.sizes:
        return math.inf
    parts = zip((one.down, one.left, one.right), (other.down, other.left, other.right), strict=True)
    return sum(float((b - a).square().sum() / (b.square().sum() or 1)) for a, b in parts)
