"""The target of a CP fit: scaled to one, read from factors as from the dense tensor.

Broken once: `/ 2` dropped in `correlate`, then in `apply`; its own test failed each time.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch.testing import assert_close

import oracles
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp.factors import Factors, squared_sizes
from bilens.algebra.cp.target import Target
from bilens.base.errors import NonFiniteError
from builders import D_IN, D_OUT, randn, random_tensor

TENSOR = random_tensor(seed=1)
DENSE = oracles.dense_tensor(TENSOR.down, TENSOR.left, TENSOR.right)
UNIT = DENSE / oracles.norm(DENSE)
MODEL = Factors(randn(D_OUT, 2, seed=5), randn(2, D_IN, seed=6), randn(2, D_IN, seed=7))


@pytest.mark.parametrize("scale", [1e-200, 1e-3, 1.0, 1e150])
def test_the_target_is_the_tensor_scaled_to_norm_one(scale: float) -> None:
    target = Target.of(replace(TENSOR, down=scale * TENSOR.down))
    left, right = target.stacked.chunk(2)
    assert_close(oracles.dense_tensor(target.down, left, right), UNIT)
    assert target.norm / scale == pytest.approx(float(oracles.norm(DENSE)))
    assert target.size >= 1


def test_correlations_are_inner_products_with_each_output() -> None:
    target = Target.of(TENSOR)
    one = torch.eye(2, dtype=torch.float64)
    found = target.correlate(target.project(MODEL.left), target.project(MODEL.right))
    pairs = oracles.dense_tensor(one, MODEL.left, MODEL.right)
    assert_close(found, torch.einsum("cij,aij->ca", UNIT, pairs))


def test_applying_reads_each_component_along_its_own_output() -> None:
    target = Target.of(TENSOR)
    found = target.apply(target.weigh(MODEL.down), target.project(MODEL.right))
    assert_close(found, torch.einsum("ca,cij,aj->ai", MODEL.down, UNIT, MODEL.right))


def test_the_inner_product_with_a_model_is_that_of_the_dense_tensors() -> None:
    target = Target.of(TENSOR)
    left, right = target.project(MODEL.left), target.project(MODEL.right)
    found = target.inner(target.weigh(MODEL.down), left, right)
    assert found == pytest.approx(float(oracles.inner(UNIT, oracles.dense_tensor(*MODEL))))


def test_the_loss_is_the_squared_error_with_the_penalty() -> None:
    target = Target.of(TENSOR)
    correlation = target.correlate(target.project(MODEL.left), target.project(MODEL.right))
    plain = float(oracles.squared_error(UNIT, *MODEL))
    penalty = float(squared_sizes(MODEL).sum())
    assert target.loss(MODEL, correlation, 0.0) == pytest.approx(plain)
    assert target.loss(MODEL, correlation, 0.5) == pytest.approx(plain + 0.5 * penalty)
    assert target.rounding(MODEL) < 1e-12


def test_hidden_units_that_cancel_make_a_zero_target() -> None:
    """sym(l rᵀ) − sym(r lᵀ) = 0, and what rounding leaves of it is no tensor."""
    left, right = randn(3, 9, seed=1) / 3, randn(3, 9, seed=2) / 7
    weight = randn(2, 3, seed=3)
    tensor = BilinearTensor(
        torch.cat([weight, -weight], dim=1), torch.cat([left, right]), torch.cat([right, left])
    )
    assert Target.of(tensor).norm == 0


def test_factors_whose_product_overflows_are_refused() -> None:
    with pytest.raises(NonFiniteError, match="the product of the factors holds"):
        Target.of(replace(TENSOR, left=1e200 * TENSOR.left, right=1e200 * TENSOR.right))
