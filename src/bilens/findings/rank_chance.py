"""The level of chance of effective ranks, for any layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import CHUNK_BYTES, rotation_null
from bilens.findings.records import Chance
from bilens.findings.spectra import chance

LARGEST_EXPONENT = 1000  # of a scale: 2^±1000 can be written in float64


def rank_chances(
    f: QuadraticMap,
    directions: Tensor,
    embedding: Tensor | None,
    num_samples: int,
    seed: int,
    progress: Callable[[int], None],
) -> tuple[Chance, ...]:
    """Return the effective ranks that the rotation null gives, one level for each direction.

    An effective rank has no scale, so the factors are brought to one where products of them
    neither overflow nor vanish. It is a power of two: nothing is rounded.

    Cost: `num_samples` times O(hidden² · width), and O(width³) for each direction, where width is
    `null_width`.

    Args:
        f: the layer in the space in which its right branch is rotated.
        directions: (num, out), one output direction a row.
        embedding: (in, in'), in front of the layer; None where there is none.
        num_samples: rotations, at least 39.
        seed: of the rotations.
        progress: called with the number of rotations done.
    """
    tensor = f.detach().to(torch.float64).tensor
    factors = (in_unit_scale(part) for part in (tensor.down, tensor.left, tensor.right))
    null = rotation_null(
        QuadraticMap(BilinearTensor(*factors)),
        directions,
        torch.Generator().manual_seed(seed),
        num_samples,
        embedding=None if embedding is None else in_unit_scale(embedding.detach().double()),
        progress=progress,
    )
    return tuple(chance(samples) for samples in null.effective_rank.T)


def in_unit_scale(factor: Tensor) -> Tensor:
    """Return a float64 factor times the power of two that brings its largest entry near one."""
    exponent = torch.frexp(factor.abs().max()).exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return factor * factor.new_tensor(2.0 ** -int(exponent))


def null_width(f: QuadraticMap, embedding: Tensor | None) -> int:
    """Return the width of the matrices that are solved for each rotation and direction."""
    before = f.sizes.d_in if embedding is None else min(embedding.shape)
    return min(before, 2 * f.sizes.d_hidden)


def null_bytes(f: QuadraticMap, embedding: Tensor | None, num: int) -> int:
    """Return the memory that the null of `num` directions takes at most, beside its samples."""
    width, hidden = null_width(f, embedding), f.sizes.d_hidden
    each = 8 * (width * hidden + 4 * width**2)
    branches = 8 * 8 * hidden * max(f.sizes.d_in, width)  # frames, products, stacked and factored
    before = 0 if embedding is None else 3 * 8 * embedding.numel()
    return branches + before + min(num * each, max(each, CHUNK_BYTES))
