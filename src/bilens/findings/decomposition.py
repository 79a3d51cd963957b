"""The eigenpairs of a layer's outputs, as plain numbers for a table or JSON."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.approximation.quadratic_fit import QuadraticFit
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.records.common import NullInterval
from bilens.records.decomposition import ApproximationQuality, EigenPair, FormSpectrum


def approximation_quality(fit: QuadraticFit, activation: str) -> ApproximationQuality:
    """Return what a fit says of itself."""
    scores = fit.r_squared
    return ApproximationQuality(
        activation,
        fit.derivation,
        fit.assumed_input,
        scores.quadratic.overall,
        scores.quadratic.standard_error,
        scores.linear.overall,
        fit.threshold,
    )


def summarise_spectra(
    eigs: EigenDecomposition,
    names: Sequence[str],
    traces: Tensor,
    ranks: Tensor | None,
    null_intervals: Sequence[NullInterval | None] | None = None,
) -> tuple[FormSpectrum, ...]:
    """Return the pairs of each form of a batch."""
    return tuple(
        _spectrum(
            eigs[index],
            name,
            float(traces[index]),
            None if ranks is None else float(ranks[index]),
            None if null_intervals is None else null_intervals[index],
        )
        for index, name in enumerate(names)
    )


def _spectrum(
    eig: EigenDecomposition, name: str, trace: float, rank: float | None, level: NullInterval | None
) -> FormSpectrum:
    assert isinstance(eig.status, Status), "one form has one status"
    assert isinstance(eig.proof, Proof), "one form has one proof"
    linear, constant = float(eig.linear.norm()), float(eig.constant)
    if not bool(eig.eigenvalues.isfinite().all()):
        return FormSpectrum(
            name,
            (),
            None,
            None,
            None,
            None,
            None,
            linear,
            constant,
            False,
            eig.proof.value,
            eig.status.value,
        )
    size = torch.where(eig.norm > 0, eig.norm, 1.0)  # its square may leave float64
    shares = (eig.eigenvalues / size).square().tolist()
    shown = zip(
        eig.eigenvalues.tolist(),
        shares,
        eig.residuals.tolist(),
        eig.converged.tolist(),
        eig.cluster_size.tolist(),
        strict=True,
    )
    pairs = tuple(EigenPair(*values) for values in shown)
    return FormSpectrum(
        name,
        pairs,
        sum(pair.explained for pair in pairs),
        rank,
        level,
        float(eig.norm),
        trace,
        linear,
        constant,
        bool(eig.complete),
        eig.proof.value,
        eig.status.value,
    )
