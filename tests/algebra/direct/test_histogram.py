"""Nothing is lost: below + Σ counts + above is the number of values.

Broken once: `values > self.edges[-1]` -> `>=`; a value on the last edge was counted twice.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, strategies as st
from torch import Tensor

import oracles
from bilens.algebra.direct.histogram import (
    Histogram,
    check_bins,
    counts_by_search,
    counts_on_cpu,
    rounded_up,
    symmetric_edges,
)
from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from builders import randn, vector

CPU = torch.device("cpu")
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


@pytest.mark.parametrize("counted", [counts_on_cpu, counts_by_search])
def test_bins_are_those_of_numpy(counted: Callable[[Tensor, Tensor], Tensor]) -> None:
    values, edges = randn(1000), randn(12, seed=1).sort().values
    values[:12] = edges
    expected = np.histogram(values.numpy(), edges.numpy())[0]
    assert counted(values, edges).tolist() == expected.tolist()


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
