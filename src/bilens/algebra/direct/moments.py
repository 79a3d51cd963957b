"""Mean, spread and shape of values that come in pieces."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Moments:
    """Moments of a whole population (divided by the count, not by the count minus one), float64.

    Attributes:
        count: (...), int64.
        mean: (...); NaN where there is no value.
        std: (...), √(Σ(x − mean)² / count).
        skewness: (...), the third standardised moment; NaN where all values are equal.
        excess_kurtosis: (...), the fourth standardised moment minus 3, so that a normal
            distribution has 0; NaN where all values are equal.
        minimum: (...).
        maximum: (...).
    """

    count: Tensor
    mean: Tensor
    std: Tensor
    skewness: Tensor
    excess_kurtosis: Tensor
    minimum: Tensor
    maximum: Tensor

    @property
    def variance(self) -> Tensor:
        """Σ(x − mean)² / count, (...)."""
        return self.std.square()

    @property
    def root_mean_square(self) -> Tensor:
        """√(Σx² / count), (...)."""
        return torch.hypot(self.mean, self.std)


@dataclass(frozen=True, eq=False)
class CentralSums:
    """What two sets of values need to say about themselves, so that their union can be described.

    Attributes:
        count: number of values.
        mean: their mean.
        second: Σ(x − mean)².
        third: Σ(x − mean)³.
        fourth: Σ(x − mean)⁴.
        minimum: the least value; infinity for none.
        maximum: the largest value; minus infinity for none.
    """

    count: int
    mean: Tensor
    second: Tensor
    third: Tensor
    fourth: Tensor
    minimum: Tensor
    maximum: Tensor

    @classmethod
    def empty(cls, device: torch.device) -> CentralSums:
        """Return the sums of no values."""
        zero = torch.zeros((), dtype=torch.float64, device=device)
        return cls(0, zero, zero, zero, zero, zero + torch.inf, zero - torch.inf)

    @classmethod
    def of(cls, values: Tensor) -> CentralSums:
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
        """Return the sums of both sets together, without the cancellation of raw power sums.

        Source: P. Pébay, "Formulas for robust, one-pass parallel computation of covariances and
        arbitrary-order statistical moments", SAND2008-6212, equations 1.5, 2.1, 3.1 (pairwise).
        """
        a, b = self.count, other.count
        n = a + b
        step = other.mean - self.mean
        second = self.second + other.second + step**2 * (a * b / n)
        third = (
            self.third
            + other.third
            + step**3 * (a * b / n) * ((a - b) / n)
            + 3 * step * (a / n * other.second - b / n * self.second)
        )
        fourth = (
            self.fourth
            + other.fourth
            + step**4 * (a * b / n) * ((a * a - a * b + b * b) / n**2)
            + 6 * step**2 * ((a / n) ** 2 * other.second + (b / n) ** 2 * self.second)
            + 4 * step * (a / n * other.third - b / n * self.third)
        )
        return CentralSums(
            n,
            self.mean + step * (b / n),
            second,
            third,
            fourth,
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
    """Return the moments of no values: NaN, and a count of 0."""
    gap = torch.full((), torch.nan, dtype=torch.float64, device=device)
    return Moments(torch.zeros_like(gap, dtype=torch.int64), gap, gap, gap, gap, gap, gap)
