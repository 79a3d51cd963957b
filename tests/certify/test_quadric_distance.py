"""Distances to quadrics: enclosed from both sides, against multiple precision.

BILENS_TEST_MARGINS sets how many functions there are in all (default 520); 10,000 take about two
minutes."""

import os

import numpy as np
import pytest
import torch
from torch import Tensor

from bilens.base.errors import NonFiniteError, ShapeError
from bilens.certify.quadric_distance import distance_to_quadric
from builders import randn, seeded, vector
from certify.hostile_margins import FAMILIES, Margin, mp, true_distance

EACH = max(int(os.environ.get("BILENS_TEST_MARGINS", "520")) // len(FAMILIES), 1)


def arguments(margin: Margin) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.from_numpy(margin.values),
        torch.from_numpy(margin.linear)[None],
        vector(margin.constant),
    )


@pytest.mark.parametrize("family", FAMILIES)
def test_the_distance_is_enclosed_within_a_millionth(family: str, sweep_share: float) -> None:
    num = max(round(sweep_share * EACH), 1)
    dice = np.random.default_rng(list(FAMILIES).index(family))
    wrong = []
    for _ in range(num):
        margin = FAMILIES[family](dice)
        found = distance_to_quadric(*arguments(margin))
        truth = true_distance(margin)
        radius, distance = float(found.radius[0]), float(found.distance[0])
        if truth == mp.inf:
            if not radius == distance == np.inf:
                wrong.append(f"{margin}: {radius}, {distance}; never reached")
        elif not truth * (1 - mp.mpf(10) ** -6) <= radius <= truth:
            wrong.append(f"{margin}: radius {radius}, in truth {mp.nstr(truth, 20)}")
        elif not truth <= distance * (1 + 1e-15) <= truth * (1 + mp.mpf(10) ** -6):
            wrong.append(f"{margin}: distance {distance}, in truth {mp.nstr(truth, 20)}")
    assert not wrong, f"{len(wrong)} of {num}:\n" + "\n".join(wrong[:5])


@pytest.mark.parametrize("family", FAMILIES)
def test_the_radius_holds_for_every_function_within_the_errors(family: str) -> None:
    dice = np.random.default_rng(200 + list(FAMILIES).index(family))
    for _ in range(max(EACH // 5, 1)):
        margin = FAMILIES[family](dice)
        sizes = np.abs(margin.values).max(), np.linalg.norm(margin.linear), margin.constant
        errors = [float(size * 10 ** dice.uniform(-14, -4)) for size in sizes]
        found = distance_to_quadric(
            *arguments(margin),
            value_error=vector(errors[0]),
            linear_error=vector(errors[1]),
            constant_error=vector(errors[2]),
        )
        push = -np.sign(found.point[0].nan_to_num(1.0).numpy())  # towards a smaller margin
        worse = Margin(
            margin.values - errors[0],
            margin.linear + errors[1] * push / max(np.linalg.norm(push), 1),
            margin.constant - errors[2],
        )
        assert float(found.radius[0]) <= true_distance(worse), margin


@pytest.mark.parametrize("width", [2, 3])
def test_no_direction_of_a_fine_scan_gets_there_earlier(width: int) -> None:
    directions = torch.nn.functional.normalize(randn(200_000, width), dim=1)
    values, linear = randn(20, width, seed=1), randn(20, width, seed=2)
    linear[::4, 0] = 0
    values[::4, 0] = -3
    constant = torch.rand(20, generator=seeded(0), dtype=torch.float64)
    found = distance_to_quadric(values, linear, constant)
    slope, bend = linear @ directions.T, values @ directions.square().T
    rest = slope.square() - 4 * constant[:, None] * bend
    t = 2 * constant[:, None] / (rest.sqrt() - slope)
    scanned = torch.where(t > 0, t, torch.inf).amin(dim=1)
    assert bool((found.radius <= scanned).all())
    assert torch.allclose(found.radius, scanned, rtol=5e-3)


def test_a_bowl_that_touches_zero_has_a_sound_radius() -> None:
    found = distance_to_quadric(vector(1.0, 1.0), vector(4.0, 0.0)[None], vector(4.0))
    assert 2 * (1 - 1e-6) < float(found.radius[0]) <= 2
    assert float(found.gap[0]) in (0, 1) or float(found.gap[0]) < 1e-6


@pytest.mark.parametrize("lowest", [1.0, 0.0, -1e-17])
@pytest.mark.parametrize("error", [1e-14, 1e-8])
def test_a_touching_function_with_errors_keeps_nearly_the_whole_distance(
    lowest: float, error: float
) -> None:
    margin = Margin(np.array([1.0, lowest]), np.array([4.0, 0.0]), 4.0)
    found = distance_to_quadric(*arguments(margin), linear_error=vector(error))
    worse = Margin(margin.values, margin.linear + np.array([error, 0]), margin.constant)
    assert 2 * (1 - 20 * error**0.5) < float(found.radius[0]) <= true_distance(worse)


def test_an_error_of_the_slope_is_not_lost_where_its_square_vanishes() -> None:
    found = distance_to_quadric(
        vector(0.0), torch.zeros(1, 1).double(), vector(1.0), linear_error=vector(1e-200)
    )
    assert 1 < float(found.radius[0]) <= 1e200


def test_an_eigenvalue_that_vanishes_beside_the_slope_proves_nothing_infinite() -> None:
    margin = Margin(np.array([-4.7e-92]), np.array([1.4e87]), 1.9e-90)
    found = distance_to_quadric(*arguments(margin))
    assert float(found.radius[0]) == pytest.approx(1.9e-90 / 1.4e87, rel=1e-9)
    never = Margin(np.array([-0.0]), np.array([1.0]), 1.0)
    assert float(distance_to_quadric(*arguments(never)).radius[0]) == pytest.approx(1)


def test_where_the_function_is_not_positive_the_distance_is_zero() -> None:
    found = distance_to_quadric(vector(1.0), torch.ones(2, 1).double(), vector(0.0, -1.0))
    assert found.radius.tolist() == found.distance.tolist() == found.gap.tolist() == [0, 0]
    assert found.point.tolist() == [[0], [0]]


def test_a_constant_within_its_error_has_radius_zero() -> None:
    found = distance_to_quadric(
        vector(-1.0), torch.ones(1, 1).double(), vector(1e-3), constant_error=vector(1e-3)
    )
    assert float(found.radius[0]) == 0
    assert float(found.distance[0]) > 0


def test_no_rows() -> None:
    empty = torch.zeros(0, 3, dtype=torch.float64)
    assert distance_to_quadric(vector(1.0, 2.0, 3.0), empty, empty[:, 0]).point.shape == (0, 3)


def test_bad_arguments_are_refused() -> None:
    linear, one = torch.ones(1, 2).double(), vector(1.0)
    with pytest.raises(ShapeError, match="values has shape"):
        distance_to_quadric(vector(1.0, 2.0, 3.0), linear, one)
    with pytest.raises(ShapeError, match="constant has shape"):
        distance_to_quadric(vector(1.0, 2.0), linear, vector(1.0, 2.0))
    with pytest.raises(NonFiniteError, match="constant"):
        distance_to_quadric(vector(1.0, 2.0), linear, vector(torch.nan))
