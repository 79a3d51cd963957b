"""The geometric median: no point nearby has a smaller sum of distances.

Broken once: rows at the median left with their infinite weight; the iteration gave NaN.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bilens.algebra.geometric_median import geometric_median
from bilens.base.errors import NonFiniteError, ShapeError


def drawn(rows: int, n: int, seed: int = 0) -> Tensor:
    return torch.randn(rows, n, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def cost(x: Tensor, point: Tensor) -> float:
    return float((x - point).norm(dim=1).sum())


def test_no_step_away_from_it_makes_the_sum_smaller() -> None:
    x = drawn(200, 4)
    median = geometric_median(x)
    for direction in torch.cat([torch.eye(4), -torch.eye(4), drawn(20, 4, seed=1)]):
        for length in (1e-4, 1e-2, 1.0):
            assert cost(x, median) <= cost(x, median + length * direction) + 1e-9


def test_a_few_huge_rows_do_not_move_it() -> None:
    x = drawn(1000, 3)
    x[:50] += 1e6
    assert geometric_median(x).norm() < 0.5
    assert x.mean(dim=0).norm() > 1e4


def test_points_on_a_line_give_their_median() -> None:
    """In the second case the iteration starts at a row: the mean is one."""
    cases = (
        ([0.0, 1.0, 9.0], 1.0),
        ([-1.0, 0.0, 1.0], 0.0),
        ([0.0, 0.0, 0.0, 9.0], 0.0),
        ([4.0], 4.0),
    )
    for values, expected in cases:
        median = geometric_median(torch.tensor(values).double()[:, None])
        torch.testing.assert_close(median, torch.tensor([expected]).double(), atol=1e-4, rtol=0)


def test_it_moves_and_scales_with_the_rows() -> None:
    x = drawn(100, 3)
    moved = geometric_median(1e-7 * x + 3.0)
    torch.testing.assert_close((moved - 3.0) / 1e-7, geometric_median(x), atol=1e-4, rtol=0)


def test_equal_rows_are_their_own_median() -> None:
    assert geometric_median(torch.full((5, 2), 0.3)).tolist() == pytest.approx([0.3, 0.3])


def test_what_has_no_median_is_refused() -> None:
    with pytest.raises(ShapeError, match="x has no rows"):
        geometric_median(torch.zeros(0, 3))
    with pytest.raises(ShapeError, match="2 axes were expected"):
        geometric_median(torch.zeros(3))
    with pytest.raises(NonFiniteError, match="x holds 1 non-finite"):
        geometric_median(torch.tensor([[1.0], [torch.nan]]))
