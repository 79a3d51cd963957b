"""Counts of values between edges; what lies outside is counted too."""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from decimal import ROUND_CEILING, Context

import torch
from torch import Tensor

from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import ShapeError, UsageError

MARGIN = 1 + 1e-9  # above rounding, so that a round number is on the same side however it came


@dataclass(frozen=True, eq=False)
class Histogram:
    """How many values lie in each bin. Nothing is lost: below + Σ counts + above = all of them.

    Attributes:
        edges: (..., bins + 1), float64, rising. A bin holds its lower edge and not its upper one;
            the last bin holds both.
        counts: (..., bins), int64.
        below: (...), int64, values less than the first edge.
        above: (...), int64, values greater than the last edge.
    """

    edges: Tensor
    counts: Tensor
    below: Tensor
    above: Tensor

    @classmethod
    def empty(cls, edges: Tensor) -> Histogram:
        """Return a histogram that has counted nothing between (bins + 1,) edges."""
        zero = torch.zeros((), dtype=torch.int64, device=edges.device)
        return cls(edges, zero.expand(len(edges) - 1), zero, zero)

    def added(self, values: Tensor) -> Histogram:
        """Return the histogram after further (n,) values, in O(n log bins)."""
        search = counts_on_cpu if values.device.type == "cpu" else counts_by_search
        return Histogram(
            self.edges,
            self.counts + search(values, self.edges),
            self.below + (values < self.edges[0]).sum(),
            self.above + (values > self.edges[-1]).sum(),
        )

    def scaled(self, edges: Tensor) -> Histogram:
        """Return the same counts between edges in another unit."""
        return replace(self, edges=edges)


def counts_on_cpu(values: Tensor, edges: Tensor) -> Tensor:
    """Return how many values lie in each bin, (bins,) int64; five times as fast as searching."""
    return torch.histogram(values, edges).hist.long()


def counts_by_search(values: Tensor, edges: Tensor) -> Tensor:
    """Return how many values lie in each bin, (bins,) int64, on any device."""
    borders = edges.clone()
    borders[-1] = torch.nextafter(edges[-1], edges.new_tensor(torch.inf))  # the last bin holds both
    places = torch.bucketize(values, borders, right=True)
    return torch.bincount(places, minlength=len(edges) + 1)[1:-1]


def check_bins(name: str, bins: int | Tensor) -> int:
    """Return the number of bins, given as such or by their edges.

    Raises:
        UsageError: Less than one bin, or edges that do not rise.
        ShapeError: Edges that are no real floating-point vector of at least two entries.
        NonFiniteError: If an edge is NaN or infinite.
    """
    if not isinstance(bins, Tensor):
        return check_count(name, bins, minimum=1)
    (length,) = check_float_tensor(name, bins, num_axes=1)
    if length < 2:
        raise ShapeError(f"{name} has {length} edge(s); a bin needs two.")
    if not bool((bins.double().diff() > 0).all()):
        raise UsageError(f"{name} must rise from edge to edge: use {name}.unique().")
    return length - 1


def symmetric_edges(largest: float, bins: int, device: torch.device) -> Tensor:
    """Return (bins + 1,) equally spaced edges over ±largest, rounded up to two digits.

    Rounded, they are short on an axis, and the rounding of `largest` itself decides nothing.
    """
    half = rounded_up(largest) if largest > 0 else 1.0
    steps = 2 * torch.arange(bins + 1, dtype=torch.float64, device=device) - bins
    return steps / bins * half  # symmetric to the last bit; an even number of bins meets at 0


def rounded_up(value: float) -> float:
    """Return a positive number, and a little more, rounded up to two significant digits."""
    digits = Context(prec=2, rounding=ROUND_CEILING).create_decimal_from_float(value * MARGIN)
    return min(float(digits), sys.float_info.max)
