"""The mean input of each class: all that a mean margin needs to know of data."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

ROWS = 4096  # inputs that are widened at a time


@dataclass(frozen=True, eq=False)
class ClassMeans:
    """Mean and number of the training inputs of each class.

    Attributes:
        means: (classes, in) float64; zeros for a class without inputs.
        counts: (classes,) float64.
    """

    means: Tensor
    counts: Tensor

    @classmethod
    def of(cls, images: Tensor, labels: Tensor, num_classes: int) -> ClassMeans:
        """Return the means of inputs (num, in) with labels (num,), summed in float64."""
        sums = torch.zeros(num_classes, images.shape[1], dtype=torch.float64)
        for start in range(0, len(images), ROWS):
            rows = slice(start, start + ROWS)
            sums.index_add_(0, labels[rows], images[rows].double())
        counts = torch.bincount(labels, minlength=num_classes).double()
        return cls(sums / counts.clamp(min=1)[:, None], counts)

    @property
    def overall(self) -> Tensor:
        """The mean of all inputs, (in,)."""
        return self.counts @ self.means / self.counts.sum()
