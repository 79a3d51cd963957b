"""A map in coordinates in which its inputs have unit covariance."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.covariance import symmetric_root
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_float_tensor, check_type
from bilens.base.errors import ShapeError


def whiten(f: QuadraticMap, covariance: Tensor, mean: Tensor | None = None) -> QuadraticMap:
    """Return z ↦ f(μ + Σ^½ z), whose spectra are those of Σ^½ Q Σ^½.

    They say how much each direction matters for inputs that vary as Σ says: for z ~ N(0, I), the
    variance of zᵀQ̃z is 2 Σλ̃². They do not change under an invertible x → Tx, Σ → TΣTᵀ.

    An eigenvector u reads the whitened input, and there are two ways back to x. The covector that
    reads x is Σ^{-½} u: u·z = (Σ^{-½} u)·(x − μ). The pattern of inputs is Σ^½ u: how x moves when
    z moves along u, and the covariance of x with u·z.

    Math: Σ^½ is the symmetric root. Directions in which the inputs do not vary vanish: eigenvalues
        of Σ up to in · eps of the largest are rounding, and zero.
    Cost: O(in³ + hidden · in²) time. Memory of the order of Σ, the map and the result: about six
        (in, in) float64 arrays and two float64 copies of the factors.

    Args:
        f: the map.
        covariance: Σ, (in, in), symmetric, no eigenvalue below zero.
        mean: μ, (in,); None is zero.

    Returns:
        A map of float64 whose basis is "whitened".

    Raises:
        ShapeError: If Σ or μ does not fit the inputs of the map.
        NonFiniteError: If Σ or μ holds NaN or infinity.
        UsageError: If Σ is not symmetric, or has an eigenvalue below zero.

    Source: the metric of a covariance; see docs/math.md.
    """
    check_type("f", f, QuadraticMap, "pass a QuadraticMap")
    d_in = f.sizes.d_in
    root = symmetric_root(covariance, d_in)
    if mean is not None:
        shape = check_float_tensor("mean", mean)
        if shape != (d_in,):
            raise ShapeError(f"mean has shape {shape}; expected ({d_in},).")
        mean = mean.detach().double()
    return f.detach().to(torch.float64).compose_input(root, mean, basis="whitened")
