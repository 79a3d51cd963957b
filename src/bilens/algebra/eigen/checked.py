"""What every solver's answer must pass before it leaves: residuals, orthogonality, masses."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Status, Which, ranked
from bilens.algebra.interaction import InteractionMatrix
from bilens.algebra.quadratic_form import QuadraticForm

EPS = torch.finfo(torch.float64).eps
SOLVER_TOLERANCE = 1000 * EPS  # of ‖Q‖_F, or of a unit vector: what a backward-stable solver keeps
FACTOR_TOLERANCE = 10 * EPS  # of Σ|s_h|‖l_h‖‖r_h‖: rounding of the factors' own products


def factor_scale(matrix: InteractionMatrix) -> Tensor:
    """Return Σ_h |weight_h| ‖left_h‖ ‖right_h‖ ≥ ‖Q‖_F: the size before terms cancel."""
    sizes = matrix.left.norm(dim=1) * matrix.right.norm(dim=1)
    scale: Tensor = matrix.weight.abs() @ sizes
    return scale


def checked_spectrum(
    form: QuadraticForm, values: Tensor, vectors: Tensor, k: int, which: Which, method: str
) -> EigenDecomposition:
    """Return k pairs of a *whole* spectrum with residuals, `converged` and `complete`.

    `complete` holds if the squares of all eigenvalues sum to the exact ‖Q‖_F² and all eigenvalues
    to the exact trace, both from the factors: then no eigenvalue is missing or counted twice.

    Args:
        form: float64.
        values: (n,) all eigenvalues.
        vectors: (n, in) their vectors, rows.
        k: number of pairs to return.
        which: the end of the spectrum.
        method: name of the solver.
    """
    mass = form.matrix.squared_norm()
    scale = factor_scale(form.matrix)
    if not bool(torch.isfinite(mass) and torch.isfinite(scale)):
        return failed(form, k, which, method, Status.NOT_FINITE)
    limit = SOLVER_TOLERANCE * mass.sqrt() + FACTOR_TOLERANCE * scale
    whole = (
        abs(values.square().sum() - mass)
        <= SOLVER_TOLERANCE * mass + FACTOR_TOLERANCE * (scale.square())
        and abs(values.sum() - form.trace()) <= limit * len(values) ** 0.5
    )
    values, vectors = ranked(values, vectors, k, which)
    residuals = (form.matvec(vectors) - values[:, None] * vectors).norm(dim=1)
    overlap = vectors @ vectors.T - torch.eye(k).to(vectors)  # a zero vector has no residual
    converged = (residuals <= limit) & (overlap.abs().amax(dim=1) <= SOLVER_TOLERANCE)
    fine = bool(whole) and bool(converged.all())
    return EigenDecomposition(
        values,
        vectors,
        residuals,
        converged,
        mass,
        torch.as_tensor(fine),
        form.linear,
        form.constant,
        method,
        which,
        Status.OK if fine else Status.RESIDUAL_TOO_LARGE,
    )


def failed(
    form: QuadraticForm, k: int, which: Which, method: str, status: Status
) -> EigenDecomposition:
    """Return the record of a form that could not be decomposed: NaN, and nothing claimed."""
    gap = form.linear.new_full((k,), torch.nan)
    return EigenDecomposition(
        gap,
        gap[:, None].expand(k, form.d_in),
        gap,
        torch.zeros(k, dtype=torch.bool),
        gap.new_tensor(torch.nan),
        torch.as_tensor(False),
        form.linear,
        form.constant,
        method,
        which,
        status,
    )
