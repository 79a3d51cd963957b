"""The reference solver: a dense symmetric eigensolver in float64."""

from __future__ import annotations

import torch

from bilens.algebra.eigen.checked import checked_spectrum, failed
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status, Which
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.checks import check_memory

METHOD = "dense"
ARRAYS = 5  # (in, in) float64 arrays alive at once: Q, its copy in the solver, the vectors, work


def solve(form: QuadraticForm, k: int, which: Which) -> EigenDecomposition:
    """Return k eigenpairs of a float64 form, from its whole spectrum.

    The residuals come from the factors, so they judge the dense array as well as the solver.

    Cost: O(in³ + hidden · in²) time, O(in²) memory.

    Raises:
        MemoryLimitError: If the dense arrays would not fit.
    """
    check_memory(
        ARRAYS * 8 * form.d_in**2,
        f"a dense eigendecomposition of width {form.d_in}",
        "decompose a map with a narrower input",
    )
    dense = form.dense()
    if not bool(torch.isfinite(dense).all()):  # factors may be finite and their product not
        return failed(form, k, which, METHOD, Status.NOT_FINITE)
    scale = dense.abs().max()
    scale = torch.where(scale > 0, scale, torch.ones_like(scale))  # no overflow inside the solver
    try:
        values, columns = torch.linalg.eigh(dense / scale)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        return failed(form, k, which, METHOD, Status.NOT_CONVERGED)
    if not bool(torch.isfinite(values).all() and torch.isfinite(columns).all()):
        return failed(form, k, which, METHOD, Status.NOT_CONVERGED)
    return checked_spectrum(form, values * scale, columns.T, k, which, METHOD)
