"""Effective ranks by chance: no scale, and what is aligned lies below them."""

import pytest
import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.findings.spectra import rank_null_intervals
from bilens.records.common import NullInterval
from builders import random_map

F = random_map(5, d_out=3, d_hidden=6, d_in=8)
E = torch.randn(8, 20, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


def chances(f: QuadraticMap, embedding: Tensor | None = None) -> tuple[NullInterval, ...]:
    return rank_null_intervals(f, embedding, 39, 0, lambda _done: None)


def scaled(down: float, left: float, right: float) -> QuadraticMap:
    tensor = F.tensor
    return QuadraticMap(
        BilinearTensor(down * tensor.down, left * tensor.left, right * tensor.right)
    )


@pytest.mark.parametrize("scale", [2.0**-500, 2.0**500])
def test_a_rank_by_chance_has_no_scale(scale: float) -> None:
    """Products of these overflow, or vanish: 2^±1500."""
    assert chances(scaled(scale, scale, scale)) == chances(F)
    assert chances(F, scale * E) == chances(F, E)


def test_aligned_branches_have_a_lower_rank_than_chance_gives() -> None:
    generator = torch.Generator().manual_seed(2)
    branch = torch.randn(12, 16, generator=generator, dtype=torch.float64)
    down = torch.eye(3, 12, dtype=torch.float64)  # output c is the square of one product
    f = QuadraticMap(BilinearTensor(down, branch, branch))
    ranks = effective_rank(eigendecompose_all(f, k=None).distinct_from_zero)
    assert ranks.tolist() == pytest.approx([1.0] * 3)
    assert all(level.low > 1.1 for level in chances(f))


def test_each_rotation_is_reported() -> None:
    done: list[int] = []
    rank_null_intervals(F, None, 39, 0, done.append)
    assert done == [*range(1, 40)]


def test_a_form_of_zeros_has_no_rank_by_chance() -> None:
    zero = scaled(0.0, 1.0, 1.0)
    assert chances(zero) == (NullInterval(0.0, 0.0, 0.0),) * 3
