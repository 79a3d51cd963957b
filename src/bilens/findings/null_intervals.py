"""What a quantity is under the null distribution: its median and an interval; effective ranks."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.random_rotations import null_memory
from bilens.algebra.rotation_null import rotation_null
from bilens.base.memory import MemoryEstimate
from bilens.records.common import NullInterval

LEVEL = 0.95
MINIMUM_SAMPLES = 39  # the fewest that can hold 95 % between two order statistics


def null_interval(samples: Tensor) -> NullInterval:
    """Return the median of a quantity under the null, and an interval that holds at least 95 %."""
    ordered = samples.sort().values
    outside = math.floor((1 - LEVEL) / 2 * (len(samples) + 1) + 1e-9)
    assert outside >= 1, "the audit asks for at least MINIMUM_SAMPLES"
    low, high = float(ordered[outside - 1]), float(ordered[-outside])
    return NullInterval(float(samples.median()), low, high)


LARGEST_EXPONENT = 1000  # of a scale: 2^±1000 can be written in float64


def rank_null_intervals(
    f: QuadraticMap,
    embedding: Tensor | None,
    num_samples: int,
    seed: int,
    progress: Callable[[int], None],
    memory_limit: int | None = None,
) -> tuple[NullInterval, ...]:
    """Return the effective ranks that the rotation null gives, one level for each output."""
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
