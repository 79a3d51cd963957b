"""How concentrated: effective rank of a spectrum, localisation and roughness of a direction."""

import math

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError, UsageError

TRUNCATED = "_bilens_truncated"  # a mark on the eigenvalues of a decomposition that has more


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """Return the effective rank (Σ|λ|)² / Σλ² of whole spectra, (..., n) → (...) float64, in O(n).

    No unit and no scale; between 1 and the rank, 0 for a spectrum of zeros. It needs the *whole*
    spectrum (zeros may be left out), and it depends on the basis of the input: compare models in
    the input basis only, and read it beside its level under a null (`rotation_null`).

    Raises: ShapeError if there is no axis of eigenvalues, or it is empty; NonFiniteError if an
        eigenvalue is NaN or infinite; UsageError for the leading eigenvalues of a decomposition
        that has more of them.
    Source: arXiv:2410.08417, App. E ((L₁/L₂)² of the eigenvalues).
    """
    shape = check_float_tensor("eigenvalues", eigenvalues)
    if getattr(eigenvalues if eigenvalues._base is None else eigenvalues._base, TRUNCATED, False):
        raise UsageError(
            f"these are the {shape[-1]} leading eigenvalues of a decomposition, not its spectrum: "
            "an effective rank needs all of them. Decompose with k=None."
        )
    if not shape or shape[-1] == 0:
        raise ShapeError(f"eigenvalues has shape {shape}; expected a whole spectrum, (..., n).")
    size = eigenvalues.double().abs()
    largest = size.amax(dim=-1, keepdim=True)
    scaled = size / largest.where(largest > 0, largest.new_ones(()))  # no overflow in the squares
    mass = scaled.square().sum(dim=-1)
    return scaled.sum(dim=-1).square() / mass.where(mass > 0, mass.new_ones(()))


def localisation(vectors: Tensor) -> Tensor:
    """Return the inverse participation ratio of directions, (..., n) → (...) float64, in O(n).

    Between 1/n, spread evenly over all inputs, and 1, one input alone; its inverse is the
    effective number of inputs. A random direction has about 3 / (n + 2). No unit and no scale,
    but it belongs to the basis: compute it where single inputs mean something, and read it beside
    its level under a null (`rotation_null`). 0 for a vector of zeros.

    Math: Σ_i v_i⁴ / (Σ_i v_i²)².
    Raises: ShapeError if there is no axis of inputs, or it is empty; NonFiniteError if a
        component is NaN or infinite.
    Source: D. J. Thouless, Physics Reports 13, 1974 (inverse participation ratio).
    """
    return subspace_localisation(_checked(vectors, 1)[..., None, :])


def subspace_localisation(basis: Tensor) -> Tensor:
    """Return the localisation of spaces of orthogonal rows, (..., m, n) → (...) float64."""
    # Math: Σ_i w_i² / (Σ_i w_i)² with w_i = Σ_a v_ai², the diagonal of the projector where the rows
    # have one length; `localisation` for m = 1.
    size = _checked(basis, 2).double().abs()
    largest = size.amax(dim=(-2, -1), keepdim=True)
    scaled = size / largest.where(largest > 0, 1.0)  # no overflow in the fourth powers
    share = scaled.square().sum(dim=-2)
    mass = share.sum(dim=-1).square()
    return share.square().sum(dim=-1) / mass.where(mass > 0, 1.0)


def _checked(vectors: Tensor, num_axes: int) -> Tensor:
    shape = check_float_tensor("vectors", vectors)
    if len(shape) < num_axes or 0 in shape[len(shape) - num_axes :]:
        expected = "(..., n)" if num_axes == 1 else "(..., m, n)"
        raise ShapeError(f"vectors has shape {shape}; expected {expected}, no axis of them empty.")
    return vectors


def cosine_transform(patterns: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the cosine coefficients of patterns on a grid, (..., in) → (..., rows, columns)."""
    # Math: Dᵀ X E, with D[i, k] ∝ cos(π (i + ½) k / rows) of unit length, and E alike.
    # Source: N. Ahmed, T. Natarajan and K. R. Rao, IEEE Trans. Computers C-23, 1974 (DCT-II).
    down, across = (cosines(length, patterns.dtype) for length in shape)
    coefficients: Tensor = down.T @ patterns.reshape(*patterns.shape[:-1], *shape) @ across
    return coefficients


def cosines(length: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the orthonormal cosines of a row of pixels, (length, frequency)."""
    position = torch.arange(length, dtype=dtype)
    waves = torch.cos(math.pi / length * (position[:, None] + 0.5) * position)
    orthonormal: Tensor = waves / waves.norm(dim=0)
    return orthonormal


def roughness(patterns: Tensor, shape: tuple[int, int]) -> Tensor:
    """Return the mean frequency of patterns on a grid, (..., in) → (...)."""
    # Math: Σ_k c_k² |k| / Σ_k c_k² over cosine coefficients c, |k|² = (k₁/rows)² + (k₂/columns)².
    energy = cosine_transform(patterns, shape).square()
    down, across = (torch.arange(length, dtype=patterns.dtype) / length for length in shape)
    frequency = torch.hypot(down[:, None], across)
    total = energy.sum(dim=(-2, -1))
    return (energy * frequency).sum(dim=(-2, -1)) / torch.where(total > 0, total, 1.0)
