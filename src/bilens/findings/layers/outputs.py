"""What a layer writes: its output directions by size, and the form along the leading one."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.concentration import effective_rank, localisation
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.hosvd import HOSVD
from bilens.algebra.output_mode_null import OutputModeNull
from bilens.records.difference import Component
from bilens.records.layer_audit import LeadingPair, OutputModes
from bilens.records.verdict import NullInterval

MASS = 0.9  # of ‖B‖², that `directions_90` hold
PAIRS = 3  # eigenpairs shown
PARTS = 5  # components shown of a direction


def read_outputs(
    found: HOSVD, direction: Tensor, leading: EigenDecomposition, null: OutputModeNull
) -> OutputModes:
    """Return the spectrum along the outputs beside its level of chance.

    Args:
        found: all singular values along the outputs.
        direction: the leading one, in the outputs of the layer.
        leading: the whole spectrum of the form along the leading direction.
        null: of the same map.
    """
    values = found.singular_values
    return OutputModes(
        effective_rank=float(effective_rank(values)),
        effective_rank_null=level(null.effective_rank),
        directions_90=directions_holding(values, MASS),
        top_share=float(values[0].square() / found.frobenius_squared),
        top_share_null=level(null.top_share),
        leading_rank=float(effective_rank(leading.distinct_from_zero)),
        leading_rank_null=level(null.leading_rank),
        leading_complete=bool(leading.complete),
        output_parts=largest_parts(direction),
        pairs=leading_pairs(leading),
    )


def leading_pairs(eig: EigenDecomposition) -> tuple[LeadingPair, ...]:
    """Return the eigenpairs of a form that are shown."""
    size = float(eig.norm) or 1.0
    return tuple(
        LeadingPair(
            eigenvalue=float(value),
            explained=(float(value) / size) ** 2,
            residual=float(residual),
            localisation=float(localisation(vector)),
            parts=largest_parts(vector),
        )
        for value, residual, vector in zip(
            eig.eigenvalues[:PAIRS], eig.residuals[:PAIRS], eig.eigenvectors[:PAIRS], strict=True
        )
    )


def largest_parts(direction: Tensor) -> tuple[Component, ...]:
    """Return the largest components of a direction."""
    order = direction.abs().argsort(descending=True)[:PARTS].tolist()
    return tuple(Component(index, float(direction[index])) for index in order)


def directions_holding(values: Tensor, share: float) -> int:
    """Return how many leading singular values hold a share of the sum of squares."""
    held = values.square().cumsum(dim=0)
    if float(held[-1]) == 0:
        return 0
    return int((held < share * held[-1]).sum()) + 1


def level(samples: Tensor) -> NullInterval:
    """Return the median of a quantity under a null, and all of its range.

    Another draw lies below the range with probability 1 / (samples + 1), and so above.
    """
    ends = torch.stack(samples.aminmax())
    return NullInterval(float(samples.median()), float(ends[0]), float(ends[1]))
