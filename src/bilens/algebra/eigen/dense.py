"""The reference solver: a dense symmetric eigensolver in float64."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import BalancedForms
from bilens.algebra.eigen.checked import (
    SOLVER_TOLERANCE,
    Spectrum,
    Terms,
    checked_spectrum,
    failed,
)
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.algebra.eigen.ranking import Which

METHOD = "dense"
PROBES = 4  # random vectors that compare an array with the factors it was formed from


def solve(terms: Terms, form: BalancedForms, k: int, which: Which) -> EigenDecomposition:
    """Return k eigenpairs of one form, from its whole spectrum.

    The matrix is formed in a scale of its own, where nothing overflows or vanishes. The residuals
    of the k pairs come from the factors, so they judge the array as well as the solver.

    Cost: 2 · hidden · in² + O(in³) time, O(in²) memory.

    Args:
        terms: the linear and constant term of the form.
        form: its matrix in a scale of its own.
        k: how many pairs.
        which: the end of the spectrum.
    """
    spectrum = whole_spectrum(form)
    if spectrum is None:
        return failed(terms, k, which, METHOD, Status.NOT_CONVERGED)
    return checked_spectrum(terms, form, spectrum, k, which, METHOD)


def whole_spectrum(form: BalancedForms) -> Spectrum | None:
    """Return all pairs of one form in its balanced unit; None if the solver failed."""
    array = form.dense(0)
    mass, forming_error = array.square().sum(), distance(array, form)
    try:
        values, columns = torch.linalg.eigh(array)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        return None
    if not bool(torch.isfinite(values).all() and torch.isfinite(columns).all()):
        return None
    columns = orthonormal(columns)
    residuals = torch.addcmul(array @ columns, columns, values, value=-1).norm(dim=0)
    return Spectrum(values, columns.T, residuals, mass, forming_error)


def orthonormal(columns: Tensor) -> Tensor:
    """Return columns that are nearly orthonormal as those that are to rounding.

    A divide-and-conquer solver loses orthogonality between the vectors of close eigenvalues, on
    some matrices by more than their residuals tell.

    Math: one Newton–Schulz step, V − ½ V (VᵀV − I), which squares the departure.
    """
    overlap = columns.T @ columns
    overlap.diagonal().sub_(1)
    if bool(overlap.norm() <= SOLVER_TOLERANCE / 2):
        return columns
    return columns.addmm(columns, overlap, alpha=-0.5)


def distance(array: Tensor, form: BalancedForms) -> Tensor:
    """Return an estimate of ‖array − Q‖_F, with products of the factors and a few random vectors.

    Math: E‖Ez‖² = ‖E‖_F² for z with independent entries of unit variance.
    """
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, form.d_in, generator=generator, dtype=torch.float64)
    difference = probes @ array - form.products(probes[None])[0]
    size: Tensor = difference.norm() / PROBES**0.5
    return size


def spectrum_values(form: BalancedForms) -> Tensor | None:
    """Return all eigenvalues of one form in its balanced unit, (in,); None if the solver failed."""
    array = form.dense(0)
    try:
        values = torch.linalg.eigvalsh(array)
    except RuntimeError:
        return None
    return values if bool(torch.isfinite(values).all()) else None
