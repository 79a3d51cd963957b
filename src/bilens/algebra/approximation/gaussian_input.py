"""The input that is assumed: N(μ, Σ), with a root of Σ at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.covariance import symmetric_root
from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError

EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, eq=False)
class GaussianInput:
    """x ~ N(μ, Σ).

    Attributes:
        mean: μ, (in,) float64.
        root: Σ^½, (in, in) float64, symmetric; None for Σ = I.
        about: what it is, for people.
    """

    mean: Tensor
    root: Tensor | None
    about: str

    @classmethod
    def of(cls, d_in: int, mean: Tensor | None, covariance: Tensor | None) -> GaussianInput:
        """Return the input with a given mean (None is zero) and covariance (None is I).

        Raises:
            ShapeError: If one does not fit the inputs.
            NonFiniteError: If one holds NaN or infinity.
            UsageError: If the covariance is not symmetric, or has an eigenvalue below zero.
        """
        if mean is not None and (shape := check_float_tensor("mean", mean)) != (d_in,):
            raise ShapeError(f"mean has shape {shape}; the layer reads {d_in} inputs: ({d_in},).")
        root = None if covariance is None else symmetric_root(covariance, d_in)
        centre = torch.zeros(d_in, dtype=torch.float64) if mean is None else mean.detach().double()
        given = [
            name for name, part in (("mean", mean), ("covariance", covariance)) if part is not None
        ]
        about = f"normal input with the given {' and '.join(given)}" if given else ""
        return cls(centre, root, f"a {about or 'standard normal input'}")

    @classmethod
    def of_data(cls, data: Tensor) -> GaussianInput:
        """Return the input with mean and covariance of data, (rows, in).

        Raises:
            UsageError: If there are fewer than two rows.
        """
        if len(data) < 2:
            raise UsageError(f"data have {len(data)} row(s): a covariance needs two or more.")
        wide = data.detach().double()
        mean = wide.mean(dim=0)
        covariance = (wide - mean).T @ (wide - mean) / (len(wide) - 1)
        about = f"a normal input with mean and covariance of {len(wide):,} rows of data"
        return cls(mean, symmetric_root(covariance, wide.shape[1]), about)

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return len(self.mean)

    def spread(self, rows: Tensor) -> Tensor:
        """Return rows·Σ^½, whose inner products are covariances of what the rows read."""
        return rows if self.root is None else rows @ self.root

    def times_covariance(self, rows: Tensor) -> Tensor:
        """Return rows·Σ."""
        return rows if self.root is None else rows @ self.root @ self.root

    def deviations(self, rows: Tensor) -> Tensor:
        """Return the standard deviation of what each row reads; below its rounding it is zero.

        A row that reads only directions in which the input does not vary is constant, and what
        rounding leaves of it must not be taken for a very narrow distribution.
        """
        size: Tensor = torch.linalg.vector_norm(self.spread(rows), dim=1)
        if self.root is None:
            return size
        rounding = 16 * self.d_in * EPS * float(self.root.norm()) * rows.norm(dim=1)
        return torch.where(size > rounding, size, 0.0)

    def draw(self, count: int, generator: torch.Generator) -> Tensor:
        """Return so many inputs, (count, in) float64."""
        z = torch.randn(count, self.d_in, generator=generator, dtype=torch.float64)
        return self.mean + self.spread(z)
