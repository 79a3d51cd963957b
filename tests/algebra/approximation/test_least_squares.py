"""R² with its standard error, and output weights refitted to data."""

import math
from dataclasses import replace

import pytest
import torch

from bilens.algebra.approximation.quadratic_fit import features, r_squared, refit
from bilens.algebra.bilinear_tensor import BilinearTensor
from builders import randn, random_map


def test_r_squared_is_the_formula() -> None:
    y, predicted = randn(200, 3) * torch.tensor([1.0, 5.0, 0.1]), randn(200, 3, seed=1) / 3
    found = r_squared(y, predicted)
    centred = y - y.mean(dim=0)
    each = 1 - (y - predicted).square().sum(dim=0) / centred.square().sum(dim=0)
    torch.testing.assert_close(found.outputs, each)
    whole = 1 - float((y - predicted).square().sum() / centred.square().sum())
    assert found.overall == pytest.approx(whole)


def test_the_standard_error_is_the_spread_over_repetitions() -> None:
    found = []
    for seed in range(300):
        x = randn(400, 1, seed=seed)
        found.append(r_squared(torch.tanh(x), 0.7 * x))
    values = torch.tensor([score.overall for score in found])
    errors = torch.tensor([score.standard_error for score in found])
    assert float(errors.mean()) == pytest.approx(float(values.std()), rel=0.25)
    assert [float(score.outputs[0]) for score in found] == pytest.approx(values.tolist())


def test_an_error_in_proportion_to_the_spread_has_no_standard_error() -> None:
    """Residuals and deviations then rise and fall together, and their ratio does not move."""
    y = randn(400, 1)
    y = y - y.mean(dim=0)
    found = r_squared(y, y / 2)
    assert found.overall == pytest.approx(0.75)
    assert found.standard_error < 1e-12


def test_a_constant_output_is_met_or_missed() -> None:
    y = torch.ones(50, 2, dtype=torch.float64) * torch.tensor([2.0, 0.0])
    met = r_squared(y, y + torch.tensor([1e-14, 0.0]))
    assert met.outputs.tolist() == [1.0, 1.0]
    assert met.overall == 1.0
    missed = r_squared(y, y + 1)
    assert missed.outputs.tolist() == [-math.inf, -math.inf]
    assert missed.standard_error == 0


def test_the_best_constant_explains_nothing() -> None:
    y = randn(100, 2)
    assert r_squared(y, y.mean(dim=0).expand_as(y)).overall == pytest.approx(0, abs=1e-12)


F = random_map(seed=1, d_out=2, d_hidden=4, d_in=5)


def seeded() -> torch.Generator:
    """A generator."""
    return torch.Generator().manual_seed(0)


def test_a_map_with_the_same_neurons_is_found_exactly() -> None:
    truth = replace(
        F, tensor=BilinearTensor(randn(2, 4, seed=9), F.tensor.left, F.tensor.right)
    ).plus_affine(randn(2, 5, seed=10), randn(2, seed=11))
    x = 3 + randn(300, 5, seed=2)
    found = refit(F, x, truth(x), seeded())
    assert found is not None
    assert found.held_out.overall == pytest.approx(1, abs=1e-10)
    assert found.closed_form_held_out.overall < 0.9
    assert found.rows == (240, 60)
    new = randn(50, 5, seed=3)
    torch.testing.assert_close(found.quadratic_map(new), truth(new), atol=1e-6, rtol=1e-6)


def test_nothing_else_fits_the_training_rows_better() -> None:
    x = randn(400, 5, seed=2)
    y = torch.tanh(F(x))
    found = refit(F, x, y, seeded())
    assert found is not None
    train = torch.randperm(len(x), generator=seeded())[80:]
    rest = y[train] - found.quadratic_map(x[train])
    reads = features(F, x[train])
    assert float((reads.T @ rest).abs().max()) < 1e-6 * float(reads.norm() * y.norm())
    assert float(rest.mean(dim=0).abs().max()) < 1e-10


def test_inputs_that_never_vary_leave_the_map_as_it_was() -> None:
    x = randn(400, 5, seed=2)
    x[:, 3] = 0.5
    found = refit(F, x, F(x) + x[:, :1], seeded())
    assert found is not None
    assert found.held_out.overall == pytest.approx(1, abs=1e-9)
    assert F.linear is not None
    assert found.quadratic_map.linear is not None
    torch.testing.assert_close(found.quadratic_map.linear[:, 3], F.linear[:, 3])


def test_too_few_rows_give_none() -> None:
    x = randn(23, 5)
    assert refit(F, x, F(x), seeded()) is None
    x = randn(24, 5)
    assert refit(F, x, F(x), seeded()) is not None
