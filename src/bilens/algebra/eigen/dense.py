"""The reference solver: a dense symmetric eigensolver in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import Balanced
from bilens.algebra.eigen.checked import Spectrum, Terms, checked_spectrum, failed
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.algebra.eigen.ranking import Which

METHOD = "dense"


def solve(terms: Terms, balanced: Balanced, k: int, which: Which) -> EigenDecomposition:
    """Return k eigenpairs of one form, from its whole spectrum.

    The matrix is formed in a scale of its own, where nothing overflows or vanishes. The residuals
    come from the factors, so they judge the dense array as well as the solver.

    Cost: O(in³ + hidden · in²) time, O(in²) memory.

    Args:
        terms: the linear and constant term of the form.
        balanced: its matrix in a scale of its own, float64.
        k: how many pairs.
        which: the end of the spectrum.
    """
    spectrum = whole_spectrum(balanced)
    if spectrum is None:
        return failed(terms, k, which, METHOD, Status.NOT_CONVERGED)
    return checked_spectrum(terms, balanced, spectrum, k, which, METHOD)


def whole_spectrum(balanced: Balanced) -> Spectrum | None:
    """Return all pairs of a form in its balanced unit; None if the solver failed."""
    dense = formed(balanced)
    try:
        values, columns = torch.linalg.eigh(dense)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        return None
    if not bool(torch.isfinite(values).all() and torch.isfinite(columns).all()):
        return None
    return Spectrum(values, columns.T, dense.square().sum())


def formed(balanced: Balanced) -> Tensor:
    """Return the matrix as an (in, in) array; that it fits was seen to by the plan."""
    matrix = balanced.matrix
    half = (matrix.left.T * matrix.weight) @ matrix.right
    return (half + half.T) / 2


def spectrum_values(balanced: Balanced) -> Tensor | None:
    """Return all eigenvalues of a form in its balanced unit, (in,); None if the solver failed."""
    try:
        values = torch.linalg.eigvalsh(formed(balanced))
    except RuntimeError:
        return None
    return values if bool(torch.isfinite(values).all()) else None
