"""Columns and products of columns as features, few enough to solve for, and the way back.

Where there are fewer rows than features, the features are replaced by as many as there are rows
that span the same functions of them (the representer theorem): the solution is the same.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from scipy.linalg import lapack
from torch import Tensor

from bilens.base.errors import NumericalError, UsageError
from bilens.base.memory import check_memory

UNKNOWNS = 6000  # of one output, at most, where nothing else is asked for
MANY_COLUMNS = 1000  # from here on, eigenvectors of (columns, columns) take seconds and more
RANK_TOLERANCE = 1e-13  # of the largest diagonal entry of the kernel
LESS = "choose a smaller n_components, or fit fewer rows"


@dataclass(frozen=True, eq=False)
class Expansion:
    """Features of the rows, of weighted mean zero, in which every quadratic map is linear."""

    features: Tensor  # (rows, features) float64
    columns: Tensor  # z, (rows, columns): what the linear part reads
    directions: Tensor  # P, (components, columns), orthonormal rows; the products are of u = P z
    scale: float  # s of the products; 0 leaves them out
    mean_product: Tensor  # weighted mean of u uᵀ
    weights: Tensor
    # the rows that span the features where these come from the kernel, with their triangle; None
    # where the features are the columns and products themselves
    pivots: tuple[Tensor, Tensor] | None

    def unfold(self, coefficients: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return Q (outputs, components, components), linear and constant of coefficients."""
        inner, intercept = coefficients[:-1], coefficients[-1]
        if self.pivots is None:
            width = self.columns.shape[1]
            linear = inner[:width].T.contiguous()
            products = self.scale * _symmetric(inner[width:].T, len(self.directions))
        else:
            rows, triangle = self.pivots
            duals = inner.new_zeros(len(self.columns), inner.shape[1])
            duals[rows] = torch.linalg.solve_triangular(triangle.T, inner, upper=True)
            duals -= self.weights[:, None] / self.weights.sum() * duals.sum(dim=0)
            reduced = self.columns @ self.directions.T
            linear = duals.T @ self.columns
            products = torch.stack([(reduced.T * dual) @ reduced for dual in duals.T])
            products = self.scale**2 * (products + products.transpose(1, 2)) / 2
        mean = (products * self.mean_product).sum(dim=(1, 2))
        return products, linear, intercept - mean


def expand(z: Tensor, weights: Tensor, directions: Tensor, scale: float) -> Expansion:
    """Return the features of standardised rows z, (rows, columns) of weighted mean zero."""
    rows, width = z.shape
    components = len(directions) if scale > 0 else 0
    directions = directions[:components]
    count = width + components * (components + 1) // 2
    size = 8 * min(rows, count) * (2 * rows + 2 * min(rows, count))
    check_memory(size, f"a table of {rows} rows with {count} columns and pairs", LESS)
    u = z @ directions.T
    mean_product = (u.T * weights) @ u / weights.sum()
    if count <= rows:
        first, second = torch.triu_indices(components, components, device=z.device)
        root = torch.where(first == second, 1.0, math.sqrt(2)).double()
        features = torch.cat([z, scale * root * u[:, first] * u[:, second]], dim=1)
        features -= weights @ features / weights.sum()
        pivots = None
    else:
        features, pivots = _from_kernel(z @ z.T + scale**2 * (u @ u.T).square(), weights)
    if not bool(torch.isfinite(features).all()):
        raise NumericalError("products of the columns overflow: scale the table down.")
    return Expansion(features, z, directions, scale, mean_product, weights, pivots)


def chosen_directions(z: Tensor, weights: Tensor, n_components: int | None) -> Tensor:
    """Return the directions whose products are formed, (components, columns), orthonormal rows."""
    rows, width = z.shape
    if n_components is None:
        room = UNKNOWNS - width if rows > UNKNOWNS else rows * rows
        n_components = min(width, max(int((math.sqrt(8 * max(room, 0) + 1) - 1) / 2), 1))
    if n_components > width:
        raise UsageError(
            f"n_components is {n_components}, and the table has {width} columns: ask for at most "
            "as many."
        )
    if n_components == width:
        return torch.eye(width, dtype=z.dtype, device=z.device)
    if rows < width and width > MANY_COLUMNS:
        weighted = z * weights.sqrt()[:, None]
        leading = torch.linalg.svd(weighted, full_matrices=False).Vh[:n_components]
    else:
        _, vectors = torch.linalg.eigh((z.T * weights) @ z / weights.sum())
        leading = vectors.T.flip(0)[:n_components]
    largest = leading.gather(1, leading.abs().argmax(dim=1, keepdim=True))
    turned: Tensor = leading * largest.sign()
    return turned


def _symmetric(upper: Tensor, width: int) -> Tensor:
    """Return the symmetric matrices of upper triangles in the scale of `expand`."""
    matrices = upper.new_zeros(len(upper), width, width)
    first, second = torch.triu_indices(width, width, device=upper.device)
    matrices[:, first, second] = upper * torch.where(first == second, 0.5, 0.5**0.5).double()
    return matrices + matrices.transpose(1, 2)


def _from_kernel(kernel: Tensor, weights: Tensor) -> tuple[Tensor, tuple[Tensor, Tensor]]:
    """Return features with this kernel, centred, from a Cholesky factor with pivots."""
    mean = kernel @ weights / weights.sum()
    kernel = kernel - mean - mean[:, None] + weights @ mean / weights.sum()
    tolerance = RANK_TOLERANCE * float(kernel.diagonal().max())
    factor, pivots, rank, _ = lapack.dpstrf(kernel.cpu().numpy(), tol=tolerance, lower=1)
    rows = torch.from_numpy(pivots.astype(np.int64) - 1).to(kernel.device)
    lower = torch.from_numpy(np.tril(factor)[:, :rank]).to(kernel.device)
    features = torch.empty_like(lower)
    features[rows] = lower
    return features, (rows[:rank], lower[:rank].contiguous())
