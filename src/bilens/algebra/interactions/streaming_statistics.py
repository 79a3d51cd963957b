"""Statistics of values that come in chunks: the largest, moments, a histogram."""

from __future__ import annotations

import sys
from collections.abc import Callable
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context

import torch
from torch import Tensor

from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError, UsageError

Locate = Callable[[Tensor], Tensor]  # positions in a piece of the stream → keys
MARGIN = 1 + 1e-9  # above rounding, so that a round number is on the same side however it came


def by_size(values: Tensor, keys: Tensor) -> Tensor:
    """Return the order of falling |value|; the smaller key comes first where sizes are equal."""
    by_key = torch.argsort(keys)
    return by_key[torch.argsort(values[by_key].abs(), descending=True, stable=True)]


@dataclass(frozen=True, eq=False)
class RunningTop:
    """The `size` values of largest |value| among those seen so far, each with a key of its own."""

    size: int  # how many are kept, at least 1; fewer are there as long as fewer were seen
    values: Tensor  # (≤ size,), by falling |value|
    keys: Tensor  # (≤ size,) int64; the smaller key comes first where sizes are equal

    @classmethod
    def empty(cls, size: int, device: torch.device) -> RunningTop:
        values = torch.empty(0, dtype=torch.float64, device=device)
        return cls(size, values, values.long())

    def added(self, values: Tensor, locate: Locate) -> RunningTop:
        sizes = values.abs()
        if len(self.values) == self.size:  # equal ones pass: their keys decide
            positions = (sizes >= self.values[-1].abs()).nonzero().squeeze(1)
        else:
            positions = torch.arange(len(values), device=values.device)
        if len(positions) > self.size:
            found = sizes[positions]
            positions = positions[found >= found.topk(self.size).values[-1]]
        if len(positions) == 0:
            return self
        values = torch.cat([self.values, values[positions]])
        keys = torch.cat([self.keys, locate(positions)])
        order = by_size(values, keys)[: self.size]
        return RunningTop(self.size, values[order], keys[order])


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of a whole population (divided by the count, not by the count minus one), float64."""

    count: Tensor  # (...), int64
    mean: Tensor  # (...); NaN where there is no value
    std: Tensor  # (...), √(Σ(x − mean)² / count)
    skewness: Tensor  # (...), the third standardised moment; NaN where all values are equal
    # (...), the fourth standardised moment minus 3, so that a normal distribution has 0; NaN where
    # all values are equal
    excess_kurtosis: Tensor
    minimum: Tensor  # (...)
    maximum: Tensor  # (...)


@dataclass(frozen=True, eq=False)
class CentralSums:
    """Power sums about the mean, from which those of a union of two sets follow."""

    count: int  # number of values
    mean: Tensor  # their mean
    second: Tensor  # Σ(x − mean)²
    third: Tensor  # Σ(x − mean)³
    fourth: Tensor  # Σ(x − mean)⁴
    minimum: Tensor  # the least value; infinity for none
    maximum: Tensor  # the largest value; minus infinity for none

    @classmethod
    def empty(cls, device: torch.device) -> CentralSums:
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return cls(0, zero, zero, zero, zero, zero + torch.inf, zero - torch.inf)

    @classmethod
    def from_values(cls, values: Tensor) -> CentralSums:
        """Return the sums of (n,) float64 values, n ≥ 1, in O(n) time and memory."""
        mean = values.mean()
        centred = values - mean
        squares = centred.square()
        return cls(
            len(values),
            mean,
            squares.sum(),
            squares.dot(centred),
            squares.dot(squares),
            *values.aminmax(),
        )

    def merged(self, other: CentralSums) -> CentralSums:
        """Return the sums of both sets together, without the cancellation of raw power sums."""
        # Source: P. Pébay, "Formulas for robust, one-pass parallel computation of covariances and
        # arbitrary-order statistical moments", Sandia report SAND2008-6212 (2008).
        a, b = self.count, other.count
        n = a + b
        p, q, step = a / n, b / n, other.mean - self.mean
        between = step**2 * (a * q)
        third = step * between * (p - q) + 3 * step * (p * other.second - q * self.second)
        fourth = step**2 * between * (p * p - p * q + q * q)
        fourth += 6 * step**2 * (p**2 * other.second + q**2 * self.second)
        fourth += 4 * step * (p * other.third - q * self.third)
        return CentralSums(
            n,
            self.mean + step * q,
            self.second + other.second + between,
            self.third + other.third + third,
            self.fourth + other.fourth + fourth,
            torch.minimum(self.minimum, other.minimum),
            torch.maximum(self.maximum, other.maximum),
        )

    def moments(self, unit: Tensor) -> Moments:
        """Return the moments of unit · x, where x are the values that were summed."""
        if self.count == 0:
            return no_moments(self.mean.device)
        differ = self.maximum > self.minimum  # else the sums hold nothing but rounding
        variance = torch.where(differ, self.second / self.count, 0.0)
        return Moments(
            torch.as_tensor(self.count, device=self.mean.device),
            self.mean * unit,
            variance.sqrt() * unit,
            torch.where(differ, self.third / self.count / variance**1.5, torch.nan),
            torch.where(differ, self.fourth / self.count / variance.square() - 3, torch.nan),
            self.minimum * unit,
            self.maximum * unit,
        )


def no_moments(device: torch.device) -> Moments:
    gap = torch.full((), torch.nan, dtype=torch.float64, device=device)
    return Moments(torch.zeros_like(gap, dtype=torch.int64), gap, gap, gap, gap, gap, gap)


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many values lie in each bin. Nothing is lost: below + Σ counts + above = all of them."""

    # (..., bins + 1), float64, rising. A bin holds its lower edge and not its upper one; the last
    # bin holds both
    edges: Tensor
    counts: Tensor  # (..., bins), int64
    below: Tensor  # (...), int64, values less than the first edge
    above: Tensor  # (...), int64, values greater than the last edge

    @classmethod
    def empty(cls, edges: Tensor) -> Histogram:
        zero = torch.zeros((), dtype=torch.int64, device=edges.device)
        return cls(edges, zero.expand(len(edges) - 1), zero, zero)

    def added(self, values: Tensor) -> Histogram:
        if values.device.type == "cpu":  # five times as fast as searching
            counts = torch.histogram(values, self.edges).hist.long()
        else:
            counts = counts_by_search(values, self.edges)
        return Histogram(
            self.edges,
            self.counts + counts,
            self.below + (values < self.edges[0]).sum(),
            self.above + (values > self.edges[-1]).sum(),
        )


def counts_by_search(values: Tensor, edges: Tensor) -> Tensor:
    """Return how many values lie in each bin, (bins,) int64, on any device."""
    borders = edges.clone()
    borders[-1] = torch.nextafter(edges[-1], edges.new_tensor(torch.inf))  # the last bin holds both
    positions = torch.bucketize(values, borders, right=True)
    return torch.bincount(positions, minlength=len(edges) + 1)[1:-1]


def check_bins(name: str, bins: int | Tensor) -> int:
    if not isinstance(bins, Tensor):
        return check_count(name, bins, minimum=1)
    (length,) = check_float_tensor(name, bins, num_axes=1)
    if length < 2:
        raise ShapeError(f"{name} has {length} edge(s); a bin needs two.")
    if not bool((bins.double().diff() > 0).all()):
        raise UsageError(f"{name} must rise from edge to edge: use {name}.unique().")
    return length - 1


def symmetric_edges(largest: float, bins: int, device: torch.device) -> Tensor:
    """Return (bins + 1,) equally spaced edges over ±largest, rounded up to two digits."""
    half = rounded_up(largest) if largest > 0 else 1.0
    steps = 2 * torch.arange(bins + 1, dtype=torch.float64, device=device) - bins
    return steps / bins * half  # symmetric to the last bit; an even number of bins meets at 0


def rounded_up(value: float) -> float:
    """Return a positive number, and a little more, rounded up to two significant digits."""
    digits = Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value * MARGIN)
    return min(float(digits), sys.float_info.max)


@dataclass(frozen=True, eq=False)
class Chunk:
    values: Tensor  # (n,) float64
    locate: Locate  # positions → keys; the key of the entry (m, n) is m · features + n


@dataclass(frozen=True, eq=False)
class StreamingStatistics:
    """Three summaries of the same entries."""

    top: RunningTop
    sums: CentralSums
    histogram: Histogram

    @classmethod
    def empty(cls, size: int, edges: Tensor) -> StreamingStatistics:
        return cls(
            RunningTop.empty(size, edges.device),
            CentralSums.empty(edges.device),
            Histogram.empty(edges),
        )

    def added(self, chunk: Chunk) -> StreamingStatistics:
        if len(chunk.values) == 0:
            return self
        return StreamingStatistics(
            self.top.added(chunk.values, chunk.locate),
            self.sums.merged(CentralSums.from_values(chunk.values)),
            self.histogram.added(chunk.values),
        )
