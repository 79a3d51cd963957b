"""The universal perturbation is the best one for the mean margin, and its proof holds.

Broken once: the gradient taken at 0 instead of at the mean; the mean margin changed by another
amount.
"""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from bilens import certify
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import randn, random_map

RADII = [0.0, 1e-3, 0.5, 2.0, 50.0]


def mean_change(f: QuadraticMap, x: Tensor, delta: Tensor) -> Tensor:
    """How much delta changes the mean of f_2 − f_1."""

    def mean(x: Tensor) -> Tensor:
        y = f(x)
        return (y[:, 2] - y[:, 1]).mean()

    return mean(x + delta) - mean(x)


@pytest.mark.parametrize("sizes", [(3, 4, 5), (4, 3, 20), (3, 30, 8)])
def test_it_changes_the_mean_margin_of_any_data_by_what_it_says(sizes: tuple[int, ...]) -> None:
    f = random_map(4, *sizes)
    x = randn(50, f.sizes.d_in, seed=3) * 2 + randn(f.sizes.d_in, seed=4)
    found = certify.universal_perturbation(f, x.mean(dim=0), 2, 1, RADII)
    for row in range(len(RADII)):
        change = mean_change(f, x, found.delta[row])
        scale = float(f(x).abs().max()) + float(change.abs())
        assert abs(float(change - found.change[row])) < 1e-12 * scale
        assert float(found.delta[row].norm()) <= RADII[row]
    assert bool((found.gap[1:] < 1e-9).all())
    assert bool((found.lower <= found.change).all())


def test_no_projected_gradient_does_better() -> None:
    f = random_map(4, 3, 6, 8)
    x = randn(50, 8, seed=3)
    found = certify.universal_perturbation(f, x.mean(dim=0), 2, 1, 1.5)
    best = torch.inf
    for seed in range(10):
        delta = torch.nn.functional.normalize(randn(8, seed=seed), dim=0) * 1.5
        for _ in range(200):
            delta.requires_grad_()
            (slope,) = torch.autograd.grad(mean_change(f, x, delta), delta)
            delta = (delta - 0.02 * slope).detach()
            delta = delta * min(1.0, 1.5 / float(delta.norm()))
        best = min(best, float(mean_change(f, x, delta)))
    assert float(found.lower) <= best
    assert float(found.change) <= best + 1e-9
    assert best == pytest.approx(float(found.change), rel=1e-4)


def test_one_radius_gives_one_vector_and_the_map_may_be_float32() -> None:
    f = random_map(4, 3, 6, 8).to(torch.float32)
    found = certify.universal_perturbation(f, torch.zeros(8), 0, 1, 1)
    assert found.delta.shape == (8,)
    assert found.change.shape == ()
    assert (found.source, found.target) == (0, 1)
    several = certify.universal_perturbation(f, torch.zeros(8), 0, 1, [1.0, 2.0])
    assert torch.equal(several.delta[0], found.delta)


def test_bad_arguments_are_refused() -> None:
    f = random_map(4, 3, 6, 8)
    mean = torch.zeros(8)
    with pytest.raises(UsageError, match="two different outputs"):
        certify.universal_perturbation(f, mean, 1, 1, 1.0)
    with pytest.raises(UsageError, match="radius"):
        certify.universal_perturbation(f, mean, 0, 1, -1.0)
    with pytest.raises(NonFiniteError, match="radius"):
        certify.universal_perturbation(f, mean, 0, 1, float("nan"))
    with pytest.raises(ShapeError, match="mean has shape"):
        certify.universal_perturbation(f, torch.zeros(7), 0, 1, 1.0)
