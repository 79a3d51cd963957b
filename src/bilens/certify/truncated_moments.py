"""What truncation changes on average, for Gaussian inputs."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.covariance import symmetric_root
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.gaussian_moments import GaussianMoments
from bilens.base.errors import UsageError
from bilens.certify.arguments import checked_vector
from bilens.certify.remainder import checked_k, each_form


def truncation_moments(
    eig: EigenDecomposition, k: int, mean: Tensor, covariance: Tensor
) -> GaussianMoments:
    """Return mean and variance of q(x) − q_k(x) for x ~ N(μ, Σ).

    Exact up to rounding if the inputs are Gaussian. For other inputs with the same μ and Σ the
    mean is exact, the variance is not.

    Math: E = Σ_{i>k} λ_i v_i v_iᵀ; mean tr EΣ + μᵀEμ, variance 2 tr EΣEΣ + 4 μᵀEΣEμ. With
        G = VΣVᵀ over the pairs cut off: Σ_i λ_i (G_ii + (v_i·μ)²), and
        Σ_ij λ_i λ_j (2 G_ij² + 4 (v_i·μ) G_ij (v_j·μ)).
    Cost: O(in³) once, O(pairs · in · (in + pairs)) a form.

    Args:
        eig: of one form or a batch, with all pairs.
        k: how many pairs are kept.
        mean: μ, (in,).
        covariance: Σ, (in, in), symmetric, no eigenvalue below zero.

    Returns:
        `mean` and `variance` of shape (...), one a form.

    Raises:
        UsageError: If k does not fit, pairs are missing, or Σ is no covariance.
        ShapeError: If μ or Σ does not fit.
        NonFiniteError: If one holds NaN or infinity.
        NumericalError: If a form did not pass its checks.

    Source: the moments of a Gaussian quadratic form; docs/math.md.
    """
    forms = list(each_form(eig))
    k, d_in = checked_k(eig, k), eig.eigenvectors.shape[-1]
    centre = checked_vector("mean", mean, d_in)
    root = symmetric_root(covariance, d_in)
    if eig.eigenvalues.shape[-1] < d_in:
        raise UsageError(
            f"{eig.eigenvalues.shape[-1]} of {d_in} pairs are at hand: decompose with k=None for "
            "all of them."
        )
    found = []
    for one in forms:
        one.check_usable()
        values, vectors = one.eigenvalues[k:], one.eigenvectors[k:]
        reached = vectors @ root
        gram, at_mean = reached @ reached.T, vectors @ centre
        weighed = 2 * gram.square() + 4 * torch.outer(at_mean, at_mean) * gram
        found.append((values @ (gram.diagonal() + at_mean.square()), values @ weighed @ values))
    means, variances = (torch.stack(parts) for parts in zip(*found, strict=True))
    variances = variances.clamp(min=0.0)  # of rounding
    if eig.eigenvalues.ndim == 1:
        return GaussianMoments(means[0], variances[0])
    return GaussianMoments(means, variances)
