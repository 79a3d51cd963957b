"""Summaries of spectra, of classes and of outputs of a layer, beside null intervals."""

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import effective_rank
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import RotationNull, rotation_null
from bilens.base.option_rules import MINIMUM_SAMPLES as MINIMUM_SAMPLES
from bilens.findings.subject import drawn
from bilens.nn import BilinearClassifier
from bilens.records.class_readings import ClassReading, Eigenvector
from bilens.records.common import NullInterval
from bilens.records.decomposition import EigenPair, FormSpectrum

LEVEL = 0.95


def null_interval(samples: Tensor) -> NullInterval:
    """Return the median of a quantity under the null, and an interval that holds at least 95 %."""
    ordered = samples.sort().values
    outside = math.floor((1 - LEVEL) / 2 * (len(samples) + 1) + 1e-9)
    assert outside >= 1, "the audit asks for at least MINIMUM_SAMPLES"
    low, high = float(ordered[outside - 1]), float(ordered[-outside])
    return NullInterval(float(samples.median()), low, high)


LARGEST_EXPONENT = 1000  # of a scale: 2^±1000 can be written in float64


def rank_null_intervals(
    f: QuadraticMap,
    embedding: Tensor | None,
    num_samples: int,
    seed: int,
    progress: Callable[[int], None],
    memory_limit: int | None = None,
) -> tuple[NullInterval, ...]:
    """Return the effective ranks that the rotation null gives, one level for each output."""
    tensor = f.detach().to(torch.float64).tensor
    down, left, right = map(in_unit_scale, (tensor.down, tensor.left, tensor.right))
    null = rotation_null(
        QuadraticMap(BilinearTensor(down, left, right)),
        None,
        torch.Generator().manual_seed(seed),
        num_samples,
        embedding=None if embedding is None else in_unit_scale(embedding.detach().double()),
        progress=progress,
        memory_limit=memory_limit,
    )
    null.check_usable()
    return tuple(null_interval(samples) for samples in null.effective_rank.T)


def in_unit_scale(factor: Tensor) -> Tensor:
    """Return a float64 factor times the power of two that brings its largest entry near one."""
    exponent = torch.frexp(factor.abs().max()).exponent.clamp(-LARGEST_EXPONENT, LARGEST_EXPONENT)
    return factor * factor.new_tensor(2.0 ** -int(exponent))


SHOWN = 4  # eigenvectors of each sign


def read_classes(
    module: BilinearClassifier, eigs: EigenDecomposition, null: RotationNull, names: tuple[str, ...]
) -> tuple[ClassReading, ...]:
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


def summarise_spectra(
    eigs: EigenDecomposition,
    names: Sequence[str],
    traces: Tensor,
    ranks: Tensor | None,
    null_intervals: Sequence[NullInterval | None] | None = None,
) -> tuple[FormSpectrum, ...]:
    found = []
    for index, name in enumerate(names):
        eig = eigs[index]
        assert isinstance(eig.status, Status), "one form has one status"
        assert isinstance(eig.proof, Proof), "one form has one proof"
        known = bool(eig.eigenvalues.isfinite().all())
        size = torch.where(eig.norm > 0, eig.norm, 1.0)  # its square may leave float64
        shares = (eig.eigenvalues / size).square()
        columns = eig.eigenvalues, shares, eig.residuals, eig.converged, eig.cluster_size
        pairs = tuple(map(EigenPair, *(x.tolist() for x in columns))) if known else ()
        found.append(
            FormSpectrum(
                name=name,
                pairs=pairs,
                explained=sum(pair.explained for pair in pairs) if known else None,
                effective_rank=float(ranks[index]) if known and ranks is not None else None,
                effective_rank_null=null_intervals[index] if known and null_intervals else None,
                frobenius_norm=float(eig.norm) if known else None,
                trace=float(traces[index]) if known else None,
                linear_norm=float(eig.linear.norm()),
                constant=float(eig.constant),
                complete=known and bool(eig.complete),
                proof=eig.proof.value,
                status=eig.status.value,
            )
        )
    return tuple(found)
