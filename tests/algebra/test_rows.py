"""Unit rows and the geometric median."""

import pytest
import torch
from hypothesis import given
from torch import Tensor

from bilens.algebra.gaussian import geometric_median
from bilens.algebra.gram.kernel import unit_rows
from bilens.base.errors import NonFiniteError, ShapeError
from builders import randn, vector
from strategies import entries


@given(entries(3, 4))
def test_a_row_is_its_direction_times_its_length(rows: Tensor) -> None:
    unit, length = unit_rows(rows)
    torch.testing.assert_close(unit * length[:, None], rows)
    nonzero = length > 0
    torch.testing.assert_close(unit.norm(dim=1)[nonzero], torch.ones_like(length)[nonzero])
    torch.testing.assert_close(length, rows.norm(dim=1))


@pytest.mark.parametrize("scale", [1e-300, 1e-200, 1e200, 1e300])
def test_squares_that_would_overflow_or_vanish_do_no_harm(scale: float) -> None:
    unit, length = unit_rows(scale * torch.tensor([[3.0, 4.0]], dtype=torch.float64))
    torch.testing.assert_close(unit, torch.tensor([[0.6, 0.8]], dtype=torch.float64))
    assert float(length / scale) == pytest.approx(5)


def test_a_row_of_zeros_stays_one() -> None:
    unit, length = unit_rows(torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(unit, torch.zeros(2, 3, dtype=torch.float64))
    assert torch.equal(length, vector(0, 0))


def test_the_gradient_of_direction_times_length_is_that_of_the_row() -> None:
    rows = randn(2, 3).requires_grad_()
    unit, length = unit_rows(rows)
    (gradient,) = torch.autograd.grad((unit * length[:, None]).square().sum(), rows)
    torch.testing.assert_close(gradient, 2 * rows.detach())


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


def test_a_row_that_is_the_median_is_returned_as_it_is() -> None:
    """The mean is the row in the middle, and the others pull at it with less than its weight."""
    rows = torch.tensor([[0.0, 0.0], [1.0, 0.0], [-0.5, 1.0], [-0.5, -1.0]]).double()
    assert geometric_median(rows).tolist() == [0.0, 0.0]


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
