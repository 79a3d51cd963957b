"""The optimisers: alternating least squares with its line search, and L-BFGS on all factors."""

from types import SimpleNamespace
from typing import Any

import pytest
import scipy.optimize
import torch
from hypothesis import given, strategies as st
from torch import Tensor
from torch.testing import assert_close

import oracles
from bilens.algebra.cp import optimisers
from bilens.algebra.cp.cp_fit import random_start
from bilens.algebra.cp.optimisers import (
    SWEEPS,
    alternating_least_squares,
    begin,
    exact_step,
    flatten,
    limited_memory_bfgs,
    loss_and_gradient,
    normal_solution,
    quartic_minimum,
    share_sizes,
    unflatten,
)
from bilens.algebra.cp.target import Factors, Model, Target
from bilens.algebra.gram.kernel import unit_rows
from bilens.base.errors import NumericalError
from builders import D_IN, D_OUT, randn, random_tensor, seeded
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


@given(st.integers(0, 10_000), st.integers(1, 5), st.sampled_from(MODELS))
def test_no_sweep_raises_the_loss(seed: int, rank: int, model: Model) -> None:
    tensor = random_tensor(seed, d_hidden=6)
    target = Target.from_tensor(tensor)
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
    target = Target.from_tensor(f.tensor)
    starts = [random_start(target, rank, model, seeded(seed)) for seed in range(3)]
    fits = [
        alternating_least_squares(target, start, model, 1e-12, 300, tolerance=1e-7)
        for start in starts
    ]
    best = min(fits, key=lambda fitted: fitted.losses[-1])  # some starts end in local minima
    assert best.converged
    found = target.norm * oracles.dense_tensor(*best.factors)
    assert_close(found, dense_of(f), rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("model", MODELS)
def test_the_losses_are_those_of_the_start_and_of_every_sweep(model: Model) -> None:
    target = Target.from_tensor(random_tensor(3, d_hidden=6))
    start = random_start(target, 2, model, seeded(0))
    fitted = alternating_least_squares(target, start, model, 1e-12, max_sweeps=3, tolerance=1e-15)
    assert len(fitted.losses) == 4
    assert fitted.sweeps == 3
    assert not fitted.converged
    assert fitted.losses[0] == begin(target, start, 1e-12).loss
    assert list(fitted.losses) == sorted(fitted.losses, reverse=True)


def test_a_component_that_is_not_needed_does_no_harm() -> None:
    """Three components for a tensor of one: two shrink, and nothing stops being finite."""
    f = planted_map(seed=1, rank=1, model="pairs")
    target = Target.from_tensor(f.tensor)
    for model in MODELS:
        start = random_start(target, 3, model, seeded(0))
        fitted = alternating_least_squares(
            target, start, model, 1e-12, max_sweeps=300, tolerance=1e-7
        )
        assert all(bool(torch.isfinite(part).all()) for part in fitted.factors)
        assert fitted.losses[-1] < 1e-6


def problem(seed: int, rank: int) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """A dense tensor, p, r, the right-hand side 2T, and a start."""
    tensor = random_tensor(seed, d_hidden=6)
    dense = oracles.dense_tensor(tensor.down, tensor.left, tensor.right)
    down = randn(D_OUT, rank, seed=seed + 50)
    right, _ = unit_rows(randn(rank, D_IN, seed=seed + 60))
    rhs = 2 * torch.einsum("ca,cij,aj->ai", down, dense, right)
    return dense, down, right, rhs, randn(rank, D_IN, seed=seed + 70)


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_solved_to_the_end_it_is_the_dense_least_squares_answer(
    rank: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(optimisers, "REDUCTION", 1e-13)
    for seed in range(4):
        dense, down, right, rhs, start = problem(seed, rank)
        found = normal_solution(down.T @ down, right, rhs, start)
        assert_close(found, oracles.best_left(dense, down, right), rtol=1e-6, atol=1e-6)


@given(st.integers(0, 1000), st.integers(1, 6), st.integers(1, 4))
def test_stopped_at_any_step_it_has_lowered_the_error(seed: int, rank: int, steps: int) -> None:
    dense, down, right, rhs, start = problem(seed, rank)
    gram = down.T @ down + 1e-10 * torch.eye(rank, dtype=torch.float64)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(optimisers, "MAX_STEPS", steps)
        found = normal_solution(gram, right, rhs, start)
    before = float(oracles.squared_error(dense, down, start, right))
    assert float(oracles.squared_error(dense, down, found, right)) < before


def test_a_start_that_is_the_answer_stays() -> None:
    _, down, right, _, left = problem(0, 2)
    own = oracles.dense_tensor(down, left, right)
    rhs = 2 * torch.einsum("ca,cij,aj->ai", down, own, right)
    assert_close(normal_solution(down.T @ down, right, rhs, left), left)


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
    target = Target.from_tensor(tensor)
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


MODELS: tuple[Model, ...] = ("pairs", "symmetric")
LEFT = randn(2, D_IN, seed=6)
MODEL_FACTORS = {
    "pairs": Factors(randn(D_OUT, 2, seed=5), LEFT, randn(2, D_IN, seed=7)),
    "symmetric": Factors(randn(D_OUT, 2, seed=5), LEFT, LEFT),
}


@pytest.mark.parametrize("ridge", [0.0, 0.5])
@pytest.mark.parametrize("model", MODELS)
def test_loss_and_gradient_are_those_of_the_dense_definition(model: Model, ridge: float) -> None:
    tensor = random_tensor(1)
    target = Target.from_tensor(tensor)
    unit = oracles.dense_tensor(tensor.down, tensor.left, tensor.right) / target.norm
    factors = MODEL_FACTORS[model]
    parts = [part.clone().requires_grad_() for part in factors[: 2 if model == "symmetric" else 3]]
    down, left, right = (*parts, parts[-1])[:3]
    expected = oracles.squared_error(unit, down, left, right)
    for a in range(2):
        single = (down[:, a : a + 1], left[a : a + 1], right[a : a + 1])
        expected = expected + ridge * (oracles.dense_tensor(*single) ** 2).sum()
    loss, gradient = loss_and_gradient(target, factors, model, ridge)
    assert loss == pytest.approx(expected.item())
    for ours, theirs in zip(gradient, torch.autograd.grad(expected, parts), strict=True):
        assert_close(ours, theirs)


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_limited_memory_bfgs_finds_planted_components(rank: int, model: Model) -> None:
    f = planted_map(seed=rank, rank=rank, model=model)
    target = Target.from_tensor(f.tensor)
    start = random_start(target, rank, model, seeded(1))
    fitted = limited_memory_bfgs(target, start, model, 1e-12, max_sweeps=1000, tolerance=1e-10)
    assert fitted.converged
    found = target.norm * oracles.dense_tensor(*fitted.factors)
    assert_close(found, dense_of(f), rtol=1e-4, atol=1e-4)


def test_the_losses_do_not_rise_and_iterations_are_limited() -> None:
    target = Target.from_tensor(random_tensor(3, d_hidden=6))
    start = random_start(target, 2, "pairs", seeded(0))
    fitted = limited_memory_bfgs(target, start, "pairs", 1e-12, max_sweeps=3, tolerance=1e-7)
    assert fitted.sweeps == 3
    assert not fitted.converged
    assert list(fitted.losses) == sorted(fitted.losses, reverse=True)


@pytest.mark.parametrize("model", MODELS)
def test_sharing_sizes_and_flattening_keep_the_sum(model: Model) -> None:
    factors = MODEL_FACTORS[model]
    shared = share_sizes(factors)
    assert_close(oracles.dense_tensor(*shared), oracles.dense_tensor(*factors))
    parts = shared[:2] if model == "symmetric" else shared
    back = unflatten(flatten(parts), parts, model)
    assert all(torch.equal(a, b) for a, b in zip(back, shared, strict=True))
    assert (back.left is back.right) == (model == "symmetric")


def test_a_solver_that_leaves_the_finite_numbers_is_an_error(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def lost(_function: object, start: Any, **_options: object) -> SimpleNamespace:
        nan = start * float("nan")
        return SimpleNamespace(x=nan, jac=nan, success=False, message="lost")

    monkeypatch.setattr(scipy.optimize, "minimize", lost)
    target = Target.from_tensor(random_tensor(3))
    start = random_start(target, 2, "pairs", seeded(0))
    with pytest.raises(NumericalError, match="left the finite numbers: lost"):
        limited_memory_bfgs(target, start, "pairs", 1e-12, max_sweeps=3, tolerance=1e-7)
