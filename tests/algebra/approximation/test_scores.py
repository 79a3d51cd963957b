"""R² and its standard error, against the formula and against repetition.

Broken once: deviations not from the mean; R² was another. The spread of residuals alone for the
standard error stayed green, until the test of an error in proportion to the spread was added.
"""

from __future__ import annotations

import math

import pytest
import torch

from bilens.algebra.approximation.scores import r_squared
from builders import randn


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
