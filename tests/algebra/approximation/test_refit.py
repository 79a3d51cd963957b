"""Output weights refitted by least squares: what data say of them, and nothing more.

Broken once: the rows held out fitted to as well; their number was wrong. The centre of the features
left in the constant; an exact map was not found.
"""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from bilens.algebra.approximation.refit import features, refit
from bilens.algebra.bilinear_tensor import BilinearTensor
from builders import randn, random_map

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
