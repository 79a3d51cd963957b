"""How rough a pattern on a grid is: its energy by frequency."""

from __future__ import annotations

import math

import torch
from torch import Tensor


def cosine_transform(patterns: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the cosine coefficients of patterns on a grid, (..., in) → (..., rows, columns).

    An orthonormal change of basis: squares of the coefficients add up to those of the pattern.

    Math: Dᵀ X E, with D[i, k] ∝ cos(π (i + ½) k / rows) of unit length, and E alike.
    Cost: O(in · (rows + columns)) for each pattern.

    Source: N. Ahmed, T. Natarajan and K. R. Rao, IEEE Trans. Computers C-23, 1974 (DCT-II).
    """
    down, across = (cosines(length, patterns.dtype) for length in shape)
    coefficients: Tensor = down.T @ patterns.reshape(*patterns.shape[:-1], *shape) @ across
    return coefficients


def cosines(length: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the orthonormal cosines of a row of pixels, (length, frequency)."""
    place = torch.arange(length, dtype=dtype)
    waves = torch.cos(math.pi / length * (place[:, None] + 0.5) * place)
    orthonormal: Tensor = waves / waves.norm(dim=0)
    return orthonormal


def roughness(patterns: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the mean frequency of patterns on a grid, (..., in) → (...).

    0 for a constant; 1 along one axis is a pixel up, a pixel down; noise has about 0.75 on a
    square grid. No scale. 0 for a pattern of zeros.

    Math: Σ_k c_k² |k| / Σ_k c_k² over cosine coefficients c, |k|² = (k₁/rows)² + (k₂/columns)².
    Cost: that of `cosine_transform`.
    """
    energy = cosine_transform(patterns, shape).square()
    down, across = (torch.arange(length, dtype=patterns.dtype) / length for length in shape)
    frequency = torch.hypot(down[:, None], across)
    total = energy.sum(dim=(-2, -1))
    return (energy * frequency).sum(dim=(-2, -1)) / torch.where(total > 0, total, 1.0)
