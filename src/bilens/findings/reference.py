"""Numbers that reference models gave: what readings of clean and of known models look like.

`reference.json` is written by `bilens reproduce findings`, from models that fix and never judge.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

FILE = "reference.json"


@dataclass(frozen=True)
class Gumbel:
    """The distribution of a largest value: P(X ≤ x) = exp(−exp(−(x − location) / scale))."""

    location: float
    scale: float

    def evidence(self, values: Tensor) -> Tensor:
        """Return −ln P(X > x), precise in both tails."""
        height = torch.exp(-(values.double() - self.location) / self.scale)
        return -torch.log(-torch.expm1(-height))
