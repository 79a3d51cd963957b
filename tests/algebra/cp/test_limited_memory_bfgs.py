"""L-BFGS on all factors: the gradient is that of the dense loss, planted components are found."""

from types import SimpleNamespace
from typing import Any

import pytest
import scipy.optimize
import torch
from torch.testing import assert_close

import oracles
from bilens.algebra.cp.decompose import random_start
from bilens.algebra.cp.optimisers import (
    flatten,
    limited_memory_bfgs,
    loss_and_gradient,
    share_sizes,
    unflatten,
)
from bilens.algebra.cp.target import Factors, Model, Target
from bilens.base.errors import NumericalError
from builders import D_IN, D_OUT, randn, random_tensor
from planted import dense_of, planted_map

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
    target = Target.of(tensor)
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
def test_planted_components_are_found(rank: int, model: Model) -> None:
    f = planted_map(seed=rank, rank=rank, model=model)
    target = Target.of(f.tensor)
    start = random_start(target, rank, model, torch.Generator().manual_seed(1))
    fitted = limited_memory_bfgs(target, start, model, 1e-12, max_sweeps=1000, tolerance=1e-10)
    assert fitted.converged
    found = target.norm * oracles.dense_tensor(*fitted.factors)
    assert_close(found, dense_of(f), rtol=1e-4, atol=1e-4)


def test_the_losses_do_not_rise_and_iterations_are_limited() -> None:
    target = Target.of(random_tensor(3, d_hidden=6))
    start = random_start(target, 2, "pairs", torch.Generator().manual_seed(0))
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
    target = Target.of(random_tensor(3))
    start = random_start(target, 2, "pairs", torch.Generator().manual_seed(0))
    with pytest.raises(NumericalError, match="left the finite numbers: lost"):
        limited_memory_bfgs(target, start, "pairs", 1e-12, max_sweeps=3, tolerance=1e-7)
