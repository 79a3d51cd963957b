"""Rows that are held out, the same share of each class."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.errors import UsageError


def held_out_rows(labels: Tensor, fraction: float, generator: torch.Generator) -> Tensor:
    """Return which rows are held out, (rows,) bool: a share of each class, and never all of it.

    Args:
        labels: (rows,), the classes; all the same where there are none.
        fraction: between 0 and 1; rounded in each class.
        generator: the source of randomness.

    Raises:
        UsageError: If no class has two rows, so that none can be held out.
    """
    order = torch.randperm(len(labels), generator=generator)
    held_out = torch.zeros(len(labels), dtype=torch.bool)
    counts = torch.bincount(labels)
    if int(counts.max()) < 2:
        raise UsageError(
            f"{len(labels)} row(s) (n_samples={len(labels)}) cannot be split: a class with at "
            "least 2 rows was expected."
        )
    wanted = torch.minimum((counts * fraction).round().long(), (counts - 1).clamp(min=0))
    if int(wanted.sum()) == 0:
        wanted[counts.argmax()] = 1
    for label, count in enumerate(wanted.tolist()):
        held_out[order[labels[order] == label][:count]] = True
    return held_out
