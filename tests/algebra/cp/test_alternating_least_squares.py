"""Alternating least squares: no sweep raises the error, and planted components are found.

Broken once: `step * direction` -> `2 * direction`; the loss of the symmetric model rose. The right
rows fitted with `current.left` in place of `left_projection`; the loss of the pairs rose.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.testing import assert_close

import oracles
from bilens.algebra.cp.alternating_least_squares import SWEEPS, begin, fit
from bilens.algebra.cp.factors import Factors, Model
from bilens.algebra.cp.starts import random_start
from bilens.algebra.cp.target import Target
from builders import random_tensor
from planted import dense_of, planted_map

MODELS: tuple[Model, ...] = ("pairs", "symmetric")
RIDGE = 1e-9


def dense_loss(unit: Tensor, factors: Factors) -> float:
    """The squared error of a model and its penalty, entry by entry."""
    single = (
        oracles.dense_tensor(
            factors.down[:, a : a + 1], factors.left[a : a + 1], factors.right[a : a + 1]
        )
        for a in range(len(factors.left))
    )
    penalty = sum(float(oracles.norm(component)) ** 2 for component in single)
    return float(oracles.squared_error(unit, *factors)) + RIDGE * penalty


def seeded(seed: int) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from(MODELS))
def test_no_sweep_raises_the_loss(seed: int, rank: int, model: Model) -> None:
    tensor = random_tensor(seed, d_hidden=6)
    target = Target.of(tensor)
    unit = oracles.dense_tensor(tensor.down, tensor.left, tensor.right) / target.norm
    current = begin(target, random_start(target, rank, model, seeded(seed)), RIDGE)
    before = dense_loss(unit, current.factors)
    for _ in range(5):
        current = SWEEPS[model](target, current, RIDGE)
        after = dense_loss(unit, current.factors)
        rounding = target.rounding(current.factors)
        assert after <= before + rounding
        assert current.loss == pytest.approx(after, abs=rounding)
        before = after


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rank", [1, 2])
def test_planted_components_are_found(rank: int, model: Model) -> None:
    f = planted_map(seed=rank, rank=rank, model=model)
    target = Target.of(f.tensor)
    starts = [random_start(target, rank, model, seeded(seed)) for seed in range(3)]
    fits = [fit(target, start, model, 1e-12, 300, tolerance=1e-7) for start in starts]
    best = min(fits, key=lambda fitted: fitted.losses[-1])  # some starts end in local minima
    assert best.converged
    found = target.norm * oracles.dense_tensor(*best.factors)
    assert_close(found, dense_of(f), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_the_losses_are_those_of_the_start_and_of_every_sweep(model: Model) -> None:
    target = Target.of(random_tensor(3, d_hidden=6))
    start = random_start(target, 2, model, seeded(0))
    fitted = fit(target, start, model, 1e-12, max_sweeps=3, tolerance=1e-15)
    assert len(fitted.losses) == 4
    assert fitted.sweeps == 3
    assert not fitted.converged
    assert fitted.losses[0] == begin(target, start, 1e-12).loss
    assert list(fitted.losses) == sorted(fitted.losses, reverse=True)


def test_a_component_that_is_not_needed_does_no_harm() -> None:
    """Three components for a tensor of one: two shrink, and nothing stops being finite."""
    f = planted_map(seed=1, rank=1, model="pairs")
    target = Target.of(f.tensor)
    for model in MODELS:
        start = random_start(target, 3, model, seeded(0))
        fitted = fit(target, start, model, 1e-12, max_sweeps=300, tolerance=1e-7)
        assert all(bool(torch.isfinite(part).all()) for part in fitted.factors)
        assert fitted.losses[-1] < 1e-6
