"""On how few inputs a direction rests."""

from __future__ import annotations

from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError


def localisation(vectors: Tensor) -> Tensor:
    """Return the inverse participation ratio of directions, (..., n) → (...) float64.

    Between 1/n, spread evenly over all inputs, and 1, one input alone; its inverse is the
    effective number of inputs. A random direction has about 3 / (n + 2). No unit and no scale,
    but it belongs to the basis: compute it where single inputs mean something, and read it beside
    its level under a null (`rotation_null`). 0 for a vector of zeros.

    Math: Σ_i v_i⁴ / (Σ_i v_i²)².
    Cost: O(n) for each vector.

    Raises:
        ShapeError: If there is no axis of inputs, or it is empty.
        NonFiniteError: If a component is NaN or infinite.

    Source: D. J. Thouless, Physics Reports 13, 1974 (inverse participation ratio).
    """
    return subspace_localisation(_checked(vectors, 1)[..., None, :])


def subspace_localisation(basis: Tensor) -> Tensor:
    """Return the localisation of spaces of orthogonal rows, (..., m, n) → (...) float64.

    For eigenvalues that cannot be told apart: it does not depend on the basis of their space.

    Math: Σ_i w_i² / (Σ_i w_i)² with w_i = Σ_a v_ai², the diagonal of the projector where the
        rows have one length; `localisation` for m = 1.
    Cost: O(m n).

    Raises:
        ShapeError: If there are no rows of inputs, or they are empty.
        NonFiniteError: If a component is NaN or infinite.
    """
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
