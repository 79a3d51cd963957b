"""The exact step along a line of sums of squares.

Broken once: the 4 of the cubic term taken for 3; the step was no longer the best one.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st

import oracles
from bilens.algebra.cp.exact_line_search import exact_step, quartic_minimum
from bilens.algebra.cp.factors import Factors
from bilens.algebra.cp.target import Target
from builders import D_IN, D_OUT, randn, random_tensor


@given(*[st.floats(-3, 3) for _ in range(3)], st.floats(0.01, 3))
def test_the_minimum_of_a_quartic_is_below_all_its_points(
    first: float, second: float, third: float, fourth: float
) -> None:
    def value(t: float) -> float:
        return first * t + second * t**2 + third * t**3 + fourth * t**4

    least = value(quartic_minimum(first, second, third, fourth))
    assert least <= 0
    assert all(least <= value(t / 10) + 1e-9 for t in range(-200, 201))


def test_a_quartic_that_is_none_has_no_step() -> None:
    assert quartic_minimum(-1.0, 1.0, 0.0, 0.0) == 0.0
    assert quartic_minimum(-1e300, 1e300, 0.0, 1e-300) == 0.0


@pytest.mark.parametrize("ridge", [0.0, 0.1])
def test_the_exact_step_is_the_best_on_its_line(ridge: float) -> None:
    tensor = random_tensor(5, d_hidden=6)
    target = Target.of(tensor)
    unit = oracles.dense_tensor(tensor.down, tensor.left, tensor.right) / target.norm
    down, rows, direction = randn(D_OUT, 2, seed=7), randn(2, D_IN, seed=8), randn(2, D_IN, seed=9)

    def loss(t: float) -> float:
        moved = rows + t * direction
        single = oracles.dense_tensor(torch.eye(2, dtype=torch.float64), moved, moved)
        sizes = down.square().sum(dim=0) * single.square().sum(dim=(1, 2))
        return float(oracles.squared_error(unit, down, moved, moved) + ridge * sizes.sum())

    factors = Factors(down, rows, rows)
    best = loss(exact_step(target, factors, target.project(rows), direction, ridge))
    assert all(best <= loss(t / 100) + 1e-12 for t in range(-200, 201))
