"""Class readings: spectra, leading eigenvectors and ranks, beside their null intervals."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.concentration import effective_rank
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import RotationNull
from bilens.findings.null_intervals import LEVEL, null_interval
from bilens.findings.subject import drawn
from bilens.nn import BilinearClassifier
from bilens.records.audit import ClassReading, Eigenvector

SHOWN = 4  # eigenvectors of each sign


def read_classes(
    module: BilinearClassifier,
    eigs: EigenDecomposition,
    null: RotationNull,
    names: tuple[str, ...],
) -> tuple[ClassReading, ...]:
    """Return the reading of every class."""
    eigs.check_usable()
    null.check_usable()
    raw = whole_ranks(module.quadratic_map())
    embedding = whole_ranks(module.quadratic_map("embedding"))
    lower, upper = null.edges(LEVEL)
    values = eigs.eigenvalues
    certain = eigs.distinct_from_zero
    p_lower, p_upper = null.p_values(values.amin(dim=1), values.amax(dim=1))
    return tuple(
        ClassReading(
            index=index,
            name=name,
            eigenvalues=tuple(values[index].sort(descending=True).values.tolist()),
            positive=end_of_spectrum(eigs[index], positive=True),
            negative=end_of_spectrum(eigs[index], positive=False),
            upper_edge=float(upper[index]),
            lower_edge=float(lower[index]),
            p_upper=float(p_upper[index]),
            p_lower=float(p_lower[index]),
            significant_positive=int((certain[index] > upper[index]).sum()),
            significant_negative=int((certain[index] < lower[index]).sum()),
            effective_rank=float(effective_rank(certain[index])),
            effective_rank_null=null_interval(null.effective_rank[:, index]),
            effective_rank_raw=float(raw[index]),
            effective_rank_embedding=float(embedding[index]),
            frobenius_norm=float(eigs.norm[index]),
            linear_norm=float(eigs.linear[index].norm()),
            constant=float(eigs.constant[index]),
            largest_residual=float(eigs.residuals[index].max()),
            complete=bool(eigs.complete[index]),
        )
        for index, name in enumerate(names)
    )


def whole_ranks(f: QuadraticMap) -> Tensor:
    """Return the effective rank of each output's own form, (out,)."""
    eigs = eigendecompose_all(f, k=None)
    eigs.check_usable()
    return effective_rank(eigs.distinct_from_zero)


def end_of_spectrum(eig: EigenDecomposition, positive: bool) -> tuple[Eigenvector, ...]:
    """Return the eigenvectors of the largest positive, or smallest negative, eigenvalues."""
    certain = eig.distinct_from_zero
    order = torch.argsort(certain, descending=positive)[:SHOWN].tolist()
    size = torch.where(eig.norm > 0, eig.norm, 1.0)
    return tuple(
        Eigenvector(
            eigenvalue=float(eig.eigenvalues[index]),
            explained=float((eig.eigenvalues[index] / size).square()),
            residual=float(eig.residuals[index]),
            subspace_size=int(eig.cluster_size[index]),
            vector=drawn(eig.eigenvectors[index]),
        )
        for index in order
        if (certain[index] > 0 if positive else certain[index] < 0)
    )
