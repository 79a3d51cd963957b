"""Accuracy with its interval, and accuracy against the number of eigenvectors kept."""

from __future__ import annotations

from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.findings.records import Share, TruncationPoint

KEPT = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300)
LEVEL = 0.95


def share_right(predicted: Tensor, labels: Tensor) -> Share:
    """Return the share of right answers and its exact 95 % interval (Clopper–Pearson)."""
    from scipy.stats import binomtest  # slow to import, needed only where data are given

    right, total = int((predicted == labels).sum()), len(labels)
    interval = binomtest(right, total).proportion_ci(LEVEL, method="exact")
    return Share(right, total, right / total, float(interval.low), float(interval.high))


def truncation_curve(
    eigs: EigenDecomposition, images: Tensor, labels: Tensor, full: Tensor
) -> tuple[TruncationPoint, ...]:
    """Return accuracy and agreement when each class keeps its k leading eigenvectors.

    Linear and constant terms are always kept. Every k is read from the same contributions,
    summed up in order of |λ|.

    Cost: O(images · classes · in²) time, O(images · in) memory for each class.

    Args:
        eigs: whole spectra of the class-centred forms.
        images: (batch, in) float64.
        labels: (batch,).
        full: (batch,), the predictions of the full model.
    """
    width = eigs.eigenvalues.shape[1]
    kept = [k for k in KEPT if k < width] + [width]
    scores = images.new_empty(len(kept), len(images), len(eigs))
    for index in range(len(eigs)):
        parts = eigs[index].contributions(images)
        sums = parts.pairs.cumsum(dim=1)
        rest = parts.linear + parts.constant
        for position, k in enumerate(kept):
            scores[position, :, index] = rest + (sums[:, k - 1] if k > 0 else 0.0)
    predicted = scores.argmax(dim=2)
    return tuple(
        TruncationPoint(
            k,
            float((predicted[position] == labels).double().mean()),
            float((predicted[position] == full).double().mean()),
        )
        for position, k in enumerate(kept)
    )
