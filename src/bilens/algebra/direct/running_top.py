"""The largest values of a stream, and where they were."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

Locate = Callable[[Tensor], Tensor]  # positions in a piece of the stream → keys


def by_size(values: Tensor, keys: Tensor) -> Tensor:
    """Return the order of falling |value|; the smaller key comes first where sizes are equal."""
    by_key = torch.argsort(keys)
    return by_key[torch.argsort(values[by_key].abs(), descending=True, stable=True)]


@dataclass(frozen=True, eq=False)
class RunningTop:
    """The `size` values of largest |value| among those seen so far, each with a key of its own.

    The same set in the same order, however the stream is cut and in whatever order it comes.

    Attributes:
        size: how many are kept, at least 1; fewer are there as long as fewer were seen.
        values: (≤ size,), by falling |value|.
        keys: (≤ size,) int64; the smaller key comes first where sizes are equal.
    """

    size: int
    values: Tensor
    keys: Tensor

    @classmethod
    def empty(cls, size: int, device: torch.device) -> RunningTop:
        """Return a top that has seen nothing."""
        values = torch.empty(0, dtype=torch.float64, device=device)
        return cls(size, values, values.long())

    def added(self, values: Tensor, locate: Locate) -> RunningTop:
        """Return the top after a further piece of the stream.

        Cost: O(n) for a piece of n values: only those that reach the last one kept are sorted.

        Args:
            values: (n,) float64.
            locate: gives the keys of the positions that it is asked for.
        """
        sizes = values.abs()
        if len(self.values) == self.size:  # equal ones pass: their keys decide
            places = (sizes >= self.values[-1].abs()).nonzero().squeeze(1)
        else:
            places = torch.arange(len(values), device=values.device)
        if len(places) > self.size:
            found = sizes[places]
            places = places[found >= found.topk(self.size).values[-1]]
        if len(places) == 0:
            return self
        values = torch.cat([self.values, values[places]])
        keys = torch.cat([self.keys, locate(places)])
        order = by_size(values, keys)[: self.size]
        return RunningTop(self.size, values[order], keys[order])
