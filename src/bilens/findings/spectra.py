"""Class readings: spectra, leading eigenvectors and ranks, beside their level of chance."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.directions import raw_directions
from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.eigen.checked import SOLVER_TOLERANCE
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import RotationNull
from bilens.findings.records import Chance, ClassReading, Eigenvector, drawn
from bilens.nn import BilinearClassifier

SHOWN = 4  # eigenvectors of each sign
LEVEL = 0.95


def read_classes(
    module: BilinearClassifier,
    eigs: EigenDecomposition,
    null: RotationNull,
    names: tuple[str, ...],
) -> tuple[ClassReading, ...]:
    """Return the reading of every class.

    Args:
        module: the model; its own forms give the raw and the embedding-basis ranks.
        eigs: whole spectra of the class-centred forms, in the input basis.
        null: the rotation null of the same forms.
        names: one for each class.
    """
    raw = whole_ranks(module.quadratic_map())
    embedding = whole_ranks(module.quadratic_map("embedding"))
    lower, upper = null.edges(LEVEL)
    values = eigs.eigenvalues
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
            significant_positive=int((values[index] > upper[index]).sum()),
            significant_negative=int((values[index] < lower[index]).sum()),
            effective_rank=float(effective_rank(values[index])),
            effective_rank_chance=chance(null.effective_rank[:, index]),
            effective_rank_raw=float(raw[index]),
            effective_rank_embedding=float(embedding[index]),
            frobenius_norm=float(eigs.frobenius_squared[index].sqrt()),
            linear_norm=float(eigs.linear[index].norm()),
            constant=float(eigs.constant[index]),
            largest_residual=float(eigs.residuals[index].max()),
            complete=bool(eigs.complete[index]),
        )
        for index, name in enumerate(names)
    )


def whole_ranks(f: QuadraticMap) -> Tensor:
    """Return the effective rank of each output's own form, (out,)."""
    eigs = eigendecompose_all(f, raw_directions(f.sizes.d_out), k=None)
    return effective_rank(eigs.eigenvalues)


def chance(samples: Tensor) -> Chance:
    """Return the median and the central 95 % of a quantity under the null."""
    tail = (1 - LEVEL) / 2
    low, median, high = torch.quantile(samples, samples.new_tensor([tail, 0.5, 1 - tail])).tolist()
    return Chance(median, low, high)


def end_of_spectrum(eig: EigenDecomposition, positive: bool) -> tuple[Eigenvector, ...]:
    """Return the eigenvectors of the largest positive, or smallest negative, eigenvalues.

    An eigenvalue that is zero but for rounding has no sign, and its vector means nothing.
    """
    limit = SOLVER_TOLERANCE * float(eig.frobenius_squared.sqrt())
    order = torch.argsort(eig.eigenvalues, descending=positive)[:SHOWN].tolist()
    sizes = {index: len(group.indices) for group in eig.subspaces() for index in group.indices}
    share = eig.eigenvalues.square() / eig.frobenius_squared.clamp(min=torch.finfo().tiny)
    return tuple(
        Eigenvector(
            eigenvalue=float(eig.eigenvalues[index]),
            explained=float(share[index]),
            residual=float(eig.residuals[index]),
            subspace_size=sizes[index],
            vector=drawn(eig.eigenvectors[index]),
        )
        for index in order
        if (eig.eigenvalues[index] > limit if positive else eig.eigenvalues[index] < -limit)
    )
