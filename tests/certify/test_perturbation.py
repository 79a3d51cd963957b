"""The least value in a ball: global, enclosed from both sides, against multiple precision.

BILENS_TEST_MARGINS sets how many functions there are in all (default 260)."""

import os

import numpy as np
import pytest
import torch
from torch import Tensor

from bilens import certify
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.certify.trust_region import solve_trust_region
from builders import randn, random_map, vector
from certify.hostile_margins import FAMILIES, mp, true_minimum

EACH = max(int(os.environ.get("BILENS_TEST_MARGINS", "260")) // len(FAMILIES), 1)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_minimum_is_enclosed_within_a_millionth(family: str, sweep_share: float) -> None:
    num = max(round(sweep_share * EACH), 1)
    dice = np.random.default_rng(100 + list(FAMILIES).index(family))
    wrong = []
    for _ in range(num):
        margin = FAMILIES[family](dice)
        radius = float(dice.choice([1e-3, 1.0, 1e3, 10 ** dice.uniform(-50, 50)]))
        found = solve_trust_region(
            torch.from_numpy(margin.values), torch.from_numpy(margin.linear)[None], vector(radius)
        )
        truth = true_minimum(margin, radius)
        size = mp.mpf(radius) * np.linalg.norm(margin.linear)
        size += mp.mpf(radius) ** 2 * np.abs(margin.values).max()
        within = abs(truth) * mp.mpf(10) ** -6 + size * mp.mpf(10) ** -150
        value, lower = float(found.value[0]), float(found.lower[0])
        if not truth - within <= lower <= truth:
            wrong.append(f"{margin} {radius}: lower {lower}, in truth {mp.nstr(truth, 20)}")
        if not truth * (1 + 1e-15) <= value <= truth + within:
            wrong.append(f"{margin} {radius}: value {value}, in truth {mp.nstr(truth, 20)}")
        if float(found.point.norm()) > radius:
            wrong.append(f"{margin} {radius}: the point is outside")
    assert not wrong, f"{len(wrong)} of {num}:\n" + "\n".join(wrong[:5])


@pytest.mark.parametrize("width", [2, 3])
def test_no_point_of_a_fine_grid_does_better(width: int) -> None:
    axis = torch.linspace(-1, 1, {2: 401, 3: 61}[width], dtype=torch.float64)
    grid = torch.cartesian_prod(*[axis] * width)
    grid = grid[grid.norm(dim=1) <= 1]
    values, linear = randn(40, width, seed=1), randn(40, width, seed=2)
    linear[::4, 0] = 0
    values[::4, 0] = -3
    found = solve_trust_region(values, linear, torch.ones(40, dtype=torch.float64))
    scanned = (linear @ grid.T + values @ grid.square().T).amin(dim=1)
    assert bool((found.lower <= scanned).all())
    assert bool((found.value <= scanned + 1e-9).all())
    assert bool((found.value >= scanned - 0.2).all())
    point = (linear * found.point + values * found.point.square()).sum(dim=1)
    assert torch.allclose(point, found.value, rtol=1e-12)


def test_many_rows_are_the_rows_one_by_one() -> None:
    values, linear = randn(6), randn(30, 6, seed=1)
    radius = torch.logspace(-5, 5, 30, dtype=torch.float64)
    found = solve_trust_region(values, linear, radius)
    for row in range(30):
        single = solve_trust_region(values, linear[row, None], radius[row, None])
        assert float(single.value[0]) == pytest.approx(float(found.value[row]), rel=1e-12)
    assert bool((found.gap < 1e-12).all())


def test_a_ball_of_radius_zero_and_a_function_that_is_zero() -> None:
    found = solve_trust_region(vector(-1.0, 2.0), randn(1, 2), vector(0.0))
    assert found.point.tolist() == [[0, 0]]
    assert float(found.value[0]) == float(found.lower[0]) == 0
    flat = torch.zeros(1, 2, dtype=torch.float64)
    found = solve_trust_region(flat, flat, vector(1.0))
    assert float(found.value[0]) == float(found.lower[0]) == float(found.gap[0]) == 0
    bowl = solve_trust_region(vector(1.0, 2.0), flat, vector(1.0))
    assert float(bowl.gap[0]) == 0


def test_no_rows() -> None:
    empty = torch.zeros(0, 3, dtype=torch.float64)
    assert solve_trust_region(vector(1.0, 2.0, 3.0), empty, empty[:, 0]).point.shape == (0, 3)


def test_bad_arguments_are_refused() -> None:
    linear = randn(2, 3)
    with pytest.raises(ShapeError, match="values has shape"):
        solve_trust_region(randn(4), linear, vector(1.0, 1.0))
    with pytest.raises(ShapeError, match="radius has shape"):
        solve_trust_region(randn(3), linear, vector(1.0))
    with pytest.raises(ShapeError, match=r"linear\.double"):
        solve_trust_region(randn(3).float(), linear.float(), vector(1.0, 1.0))
    with pytest.raises(UsageError, match="negative"):
        solve_trust_region(randn(3), linear, vector(1.0, -1.0))
    with pytest.raises(NonFiniteError, match="values"):
        solve_trust_region(vector(1.0, torch.nan, 2.0), linear, vector(1.0, 1.0))


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


def test_bad_pairs_and_radii_are_refused() -> None:
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
