"""The level of chance of effective ranks, for any layer."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import null_memory, rotation_null
from bilens.base.memory import MemoryEstimate
from bilens.findings.null_interval import null_interval
from bilens.records.verdict import NullInterval

LARGEST_EXPONENT = 1000  # of a scale: 2^±1000 can be written in float64


def rank_chances(
    f: QuadraticMap,
    embedding: Tensor | None,
    num_samples: int,
    seed: int,
    progress: Callable[[int], None],
    memory_limit: int | None = None,
) -> tuple[NullInterval, ...]:
    """Return the effective ranks that the rotation null gives, one level for each output.

    An effective rank has no scale, so the factors are brought to one where products of them
    neither overflow nor vanish. It is a power of two: nothing is rounded.

    Cost: `num_samples` times O(hidden² · width), and O(width³) for each output, where width is
    that of the matrices solved.

    Args:
        f: the layer in the space in which its right branch is rotated.
        embedding: (in, in'), in front of the layer; None where there is none.
        num_samples: rotations, at least 39.
        seed: of the rotations.
        progress: called with the number of rotations done.
        memory_limit: as in `rotation_null`.

    Raises:
        NumericalError: If a direction has no level of chance.
        MemoryLimitError: If not even one direction at a time fits into the memory allowed.
    """
    tensor = f.detach().to(torch.float64).tensor
    factors = (in_unit_scale(part) for part in (tensor.down, tensor.left, tensor.right))
    null = rotation_null(
        QuadraticMap(BilinearTensor(*factors)),
        None,
        torch.Generator().manual_seed(seed),
        num_samples,
        embedding=None if embedding is None else in_unit_scale(embedding.detach().double()),
        progress=progress,
        memory_limit=memory_limit,
    )
    null.check_usable()
    return tuple(null_interval(samples) for samples in null.effective_rank.T)


def in_unit_scale(factor: Tensor) -> Tensor:
    """Return a float64 factor times the power of two that brings its largest entry near one."""
    exponent = torch.frexp(factor.abs().max()).exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return factor * factor.new_tensor(2.0 ** -int(exponent))


def null_estimate(
    f: QuadraticMap, embedding: Tensor | None, num: int, num_samples: int
) -> MemoryEstimate:
    """Return what the null of `num` directions takes in memory."""
    before = None if embedding is None else embedding.shape[1]
    return null_memory(f.sizes, num, num_samples, before, localised=False)
