"""Statistics of a stream: the largest, moments, histograms."""

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from scipy import stats
from torch import Tensor

import oracles
from bilens.algebra.interactions.streaming_statistics import (
    CentralSums,
    Histogram,
    Moments,
    RunningTop,
    check_bins,
    counts_by_search,
    rounded_up,
    symmetric_edges,
)
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import randn, vector

CPU = torch.device("cpu")


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[int], Tensor, list[int]]:
    """Values with many ties, an order of arrival, and how they are cut."""
    sizes = draw(st.lists(st.integers(1, 6), min_size=1, max_size=6))
    total = sum(sizes)
    values = draw(st.lists(st.integers(-3, 3), min_size=total, max_size=total))
    return values, torch.tensor(draw(st.permutations(range(total)))), sizes


@given(streams(), st.integers(1, 12))
def test_the_top_is_that_of_the_sorted_whole(
    stream: tuple[list[int], Tensor, list[int]], size: int
) -> None:
    values, order, sizes = stream
    top = RunningTop.empty(size, CPU)
    for keys in order.split(sizes):
        top = top.added(torch.tensor(values).double()[keys], lambda p, keys=keys: keys[p])
    expected = sorted(range(len(values)), key=lambda key: (-abs(values[key]), key))[:size]
    assert top.keys.tolist() == expected
    assert top.values.tolist() == [values[key] for key in expected]


def test_only_candidates_are_located() -> None:
    """Keys are asked for where a value may enter the list, not for the whole piece."""
    asked: list[int] = []

    def locate(positions: Tensor) -> Tensor:
        asked.append(len(positions))
        return positions

    top = RunningTop.empty(3, CPU).added(torch.arange(100).double(), locate)
    top.added(torch.arange(97).double() / 97, locate)
    assert asked == [3]


ONE = vector(1.0)[0]


def streamed(values: Tensor, sizes: list[int]) -> Moments:
    sums = CentralSums.empty(CPU)
    for piece in values.split(sizes):
        sums = sums.merged(CentralSums.from_values(piece))
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
        "skewness": stats.skew(array),
        "excess_kurtosis": stats.kurtosis(array),
        "minimum": array.min(),
        "maximum": array.max(),
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
    sums = CentralSums.from_values(skewed(30, seed=3))
    plain, scaled = sums.moments(ONE), sums.moments(4 * ONE)
    for name in ("mean", "std", "minimum", "maximum"):
        assert float(getattr(scaled, name)) == 4 * float(getattr(plain, name))
    assert torch.equal(scaled.skewness, plain.skewness)
    assert torch.equal(scaled.excess_kurtosis, plain.excess_kurtosis)


WHOLE = st.integers(-6, 6)


@given(st.lists(WHOLE, max_size=20), st.sets(WHOLE, min_size=2), st.integers(0, 20))
def test_every_value_is_counted_once(values: list[int], edges: set[int], cut: int) -> None:
    """Whole numbers, so that many values lie on an edge."""
    found = Histogram.empty(torch.tensor(sorted(edges)).double())
    for piece in (values[:cut], values[cut:]):
        found = found.added(torch.tensor(piece, dtype=torch.float64))
    below, counts, above = oracles.histogram([*map(float, values)], [*map(float, sorted(edges))])
    assert (int(found.below), found.counts.tolist(), int(found.above)) == (below, counts, above)
    assert below + sum(counts) + above == len(values)


def test_bins_on_an_accelerator_are_those_of_numpy() -> None:
    values, edges = randn(1000), randn(12, seed=1).sort().values
    values[:12] = edges
    expected = np.histogram(values.numpy(), edges.numpy())[0]
    assert counts_by_search(values, edges).tolist() == expected.tolist()


@pytest.mark.parametrize("bins", [1, 2, 5, 100])
def test_edges_are_symmetric_to_the_last_bit(bins: int) -> None:
    edges = symmetric_edges(0.123, bins, CPU)
    assert len(edges) == bins + 1
    assert torch.equal(edges, -edges.flip(0))
    assert float(edges[-1]) == 0.13
    assert bool((edges.diff() > 0).all())


def test_there_are_edges_where_everything_is_zero() -> None:
    assert symmetric_edges(0.0, 2, CPU).tolist() == [-1, 0, 1]


@pytest.mark.parametrize(
    ("value", "expected"),
    [(1.23, 1.3), (99.5, 100), (0.0449, 0.045), (3.0, 3.1), (4.2e-300, 4.3e-300), (5e-324, 5e-324)],
)
def test_two_digits_hold_the_value(value: float, expected: float) -> None:
    assert rounded_up(value) == pytest.approx(expected)
    assert rounded_up(value) >= value


def test_the_rounding_of_a_range_does_not_show() -> None:
    assert rounded_up(3.0) == rounded_up(np.nextafter(3.0, 4)) == rounded_up(np.nextafter(3.0, 2))
    assert np.isfinite(rounded_up(1.79e308))


def test_bins_are_a_number_or_edges() -> None:
    assert check_bins("bins", 7) == 7
    assert check_bins("bins", vector(0, 1, 3)) == 2


@pytest.mark.parametrize(
    ("bins", "error", "message"),
    [
        (0, UsageError, "bins must be an integer of at least 1, got 0"),
        (2.5, UsageError, "bins must be an integer of at least 1, got 2.5"),
        (vector(1), ShapeError, r"bins has 1 edge\(s\); a bin needs two"),
        (vector(0, 1, 1), UsageError, r"bins must rise from edge to edge: use bins\.unique"),
        (vector(0, torch.nan), NonFiniteError, "bins holds 1 non-finite value"),
        (torch.tensor([0, 1]), ShapeError, "bins has dtype torch.int64; a real floating-point"),
        (vector(0, 1)[None], ShapeError, "bins has shape .*; 1 axes were expected"),
    ],
)
def test_other_bins_are_refused(bins: object, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        check_bins("bins", bins)
