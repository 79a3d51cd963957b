"""The reference solver: a dense symmetric eigensolver in float64."""

from __future__ import annotations

import torch

from bilens.algebra.eigen.balance import balance
from bilens.algebra.eigen.checked import Spectrum, checked_spectrum, failed
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.algebra.eigen.ranking import Which
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.checks import check_memory

METHOD = "dense"
ARRAYS = 5  # (in, in) float64 arrays alive at once: Q, its copy in the solver, the vectors, work


def solve(form: QuadraticForm, k: int, which: Which) -> EigenDecomposition:
    """Return k eigenpairs of a float64 form, from its whole spectrum.

    The matrix is formed in a scale of its own, where nothing overflows or vanishes. The residuals
    come from the factors, so they judge the dense array as well as the solver.

    Cost: O(in³ + hidden · in²) time, O(in²) memory.

    Raises:
        MemoryLimitError: If the dense arrays would not fit.
    """
    check_memory(
        ARRAYS * 8 * form.d_in**2,
        f"a dense eigendecomposition of width {form.d_in}",
        "decompose a map with a narrower input",
    )
    balanced = balance(form.matrix)
    if not bool(torch.isfinite(balanced.unit)):  # factors may be finite and their product not
        return failed(form, k, which, METHOD, Status.NOT_FINITE)
    dense = balanced.matrix.dense()
    try:
        values, columns = torch.linalg.eigh(dense)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        return failed(form, k, which, METHOD, Status.NOT_CONVERGED)
    if not bool(torch.isfinite(values).all() and torch.isfinite(columns).all()):
        return failed(form, k, which, METHOD, Status.NOT_CONVERGED)
    spectrum = Spectrum(values, columns.T, dense.square().sum())
    return checked_spectrum(form, balanced, spectrum, k, which, METHOD)
