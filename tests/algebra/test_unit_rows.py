"""Rows of unit length and the lengths they had.

Broken once: `shrunk.norm` turned into `rows.norm`; the squares of rows of 1e200 overflowed.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from torch import Tensor

from bilens.algebra.unit_rows import unit_rows
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
