"""Moments of rows that pass by once."""

from collections.abc import Iterable
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.base.errors import UsageError


class RowMoments(NamedTuple):
    """Moments of rows of n inputs, in float64."""

    mean: Tensor  # (n,)
    covariance: Tensor  # (n, n)
    kurtosis: Tensor  # (n,), E z⁴ / (E z²)² around the mean; 3 for a normal input, NaN if constant
    norms: Tensor  # (rows,), ‖x‖


def row_moments(batches: Iterable[Tensor]) -> RowMoments:
    """Return the moments of rows, (any, n) and at least one in all; none is kept."""
    # Math: power sums of z = x − s, s the mean of the first batch with rows, so that little
    # cancels; with m = E z, E (z − m)⁴ = E z⁴ − 4 m E z³ + 6 m² E z² − 3 m⁴.
    shift, norms = torch.zeros(()), list[Tensor]()
    powers = second = torch.zeros((), dtype=torch.float64)
    for x in (batch.detach().double() for batch in batches if len(batch)):  # an expert may rest
        z = x - (shift := shift if norms else x.mean(dim=0))
        powers = powers + torch.stack([z.pow(power).sum(dim=0) for power in (1, 3, 4)])
        second = second + z.T @ z
        norms.append(x.norm(dim=1))
    if not norms:
        raise UsageError("there are no rows: moments need one or more.")
    m, third, fourth = powers / sum(map(len, norms))
    square = second / sum(map(len, norms))
    covariance, mean = square - torch.outer(m, m), shift + m
    moving = covariance.diagonal() > torch.finfo(m.dtype).eps * mean.square()
    variance = torch.where(moving, covariance.diagonal(), torch.nan)
    central = fourth - 4 * m * third + 6 * m.square() * square.diagonal() - 3 * m.pow(4)
    return RowMoments(mean, covariance, central / variance.square(), torch.cat(norms))
