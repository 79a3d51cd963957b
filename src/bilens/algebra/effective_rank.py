"""How many eigenvalues carry a spectrum."""

from __future__ import annotations

from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError


def effective_rank(eigenvalues: Tensor) -> Tensor:
    """Return the effective rank (Σ|λ|)² / Σλ² of whole spectra, (..., n) → (...) float64.

    No unit and no scale; between 1 and the rank, 0 for a spectrum of zeros. It needs the *whole*
    spectrum (zeros may be left out), and it depends on the basis of the input: compare models in
    the input basis only, and read it beside its level under a null (`rotation_null`).

    Cost: O(n) for each spectrum.

    Raises:
        ShapeError: If there is no axis of eigenvalues, or it is empty.
        NonFiniteError: If an eigenvalue is NaN or infinite.

    Source: arXiv:2410.08417, App. E ((L₁/L₂)² of the eigenvalues).
    """
    shape = check_float_tensor("eigenvalues", eigenvalues)
    if not shape or shape[-1] == 0:
        raise ShapeError(f"eigenvalues has shape {shape}; expected a whole spectrum, (..., n).")
    size = eigenvalues.double().abs()
    largest = size.amax(dim=-1, keepdim=True)
    scaled = size / largest.where(largest > 0, largest.new_ones(()))  # no overflow in the squares
    mass = scaled.square().sum(dim=-1)
    return scaled.sum(dim=-1).square() / mass.where(mass > 0, mass.new_ones(()))
