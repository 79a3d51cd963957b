"""Moments that come in pieces are those of the whole, whatever the pieces.

Broken once: `(a - b) / n` -> `(b - a) / n` in the third sum of `merged`; skewness failed.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats
from torch import Tensor

from bilens.algebra.direct.moments import CentralSums, Moments
from builders import randn, vector

CPU = torch.device("cpu")
ONE = vector(1.0)[0]


def streamed(values: Tensor, sizes: list[int]) -> Moments:
    sums = CentralSums.empty(CPU)
    for piece in values.split(sizes):
        sums = sums.merged(CentralSums.of(piece))
    return sums.moments(ONE)


def skewed(n: int, seed: int) -> Tensor:
    return torch.exp(randn(n, seed=seed)) + 5


@pytest.mark.parametrize("sizes", [[60], [1] * 60, [59, 1], [1, 59], [10, 20, 30]])
def test_pieces_have_the_moments_that_scipy_finds_in_the_whole(sizes: list[int]) -> None:
    values = skewed(60, seed=1)
    found, array = streamed(values, sizes), values.numpy()
    assert int(found.count) == 60
    expected = {
        "mean": array.mean(),
        "std": array.std(),
        "variance": array.var(),
        "skewness": stats.skew(array),
        "excess_kurtosis": stats.kurtosis(array),
        "minimum": array.min(),
        "maximum": array.max(),
        "root_mean_square": (array**2).mean() ** 0.5,
    }
    for name, value in expected.items():
        assert float(getattr(found, name)) == pytest.approx(value, rel=1e-12), name


@given(st.lists(st.integers(1, 9), min_size=1, max_size=8), st.integers(0, 1000))
def test_the_cut_does_not_matter(sizes: list[int], seed: int) -> None:
    values = skewed(sum(sizes), seed)
    whole, pieces = streamed(values, [sum(sizes)]), streamed(values, sizes)
    for name in ("mean", "std", "skewness", "excess_kurtosis", "minimum", "maximum"):
        torch.testing.assert_close(getattr(pieces, name), getattr(whole, name), equal_nan=True)


def test_a_large_mean_does_not_swallow_the_spread() -> None:
    """Raw power sums would leave nothing: 1e9² has 18 digits, the variance is 1."""
    values = randn(1000, seed=2)
    near, far = streamed(values, [100] * 10), streamed(values + 1e9, [100] * 10)
    for name in ("std", "skewness", "excess_kurtosis"):
        assert float(getattr(far, name)) == pytest.approx(float(getattr(near, name)), abs=1e-5)


def test_a_normal_sample_has_no_excess() -> None:
    """The standard error of the excess kurtosis of n normal values is √(24/n) = 0.011."""
    assert abs(float(streamed(randn(200_000), [200_000]).excess_kurtosis)) < 0.044


def test_equal_values_have_no_shape() -> None:
    found = streamed(torch.full((7,), 0.1, dtype=torch.float64), [3, 4])
    assert float(found.std) == 0
    assert bool(found.skewness.isnan() & found.excess_kurtosis.isnan())


def test_no_values_have_no_moments() -> None:
    found = CentralSums.empty(CPU).moments(ONE)
    assert int(found.count) == 0
    for name in ("mean", "std", "skewness", "excess_kurtosis", "minimum", "maximum"):
        assert bool(getattr(found, name).isnan())


def test_a_unit_moves_sizes_and_not_shapes() -> None:
    sums = CentralSums.of(skewed(30, seed=3))
    plain, scaled = sums.moments(ONE), sums.moments(4 * ONE)
    for name in ("mean", "std", "minimum", "maximum"):
        assert float(getattr(scaled, name)) == 4 * float(getattr(plain, name))
    assert torch.equal(scaled.skewness, plain.skewness)
    assert torch.equal(scaled.excess_kurtosis, plain.excess_kurtosis)
