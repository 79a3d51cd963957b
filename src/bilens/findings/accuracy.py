"""Accuracy with its interval, and accuracy against the number of eigenvectors kept."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.records.audit import TruncationPoint
from bilens.records.verdict import Share

KEPT = (0, 1, 2, 3, 4, 5, 6, 8, 10, 12, 15, 20, 25, 30, 40, 50, 75, 100, 150, 200, 300)
LEVEL = 0.95
ACCURACY_DROP = 0.01  # what "as good as the whole model" may lose
IMAGES_AT_ONCE = 500


def share_right(predicted: Tensor, labels: Tensor) -> Share:
    """Return the share of right answers and its exact 95 % interval (Clopper–Pearson)."""
    from scipy.stats import binomtest  # slow to import, needed only where data are given

    right, total = int((predicted == labels).sum()), len(labels)
    interval = binomtest(right, total).proportion_ci(LEVEL, method="exact")
    return Share(right, total, right / total, float(interval.low), float(interval.high))


def truncation_curve(
    eigs: EigenDecomposition, images: Tensor, labels: Tensor, full: Tensor
) -> tuple[tuple[TruncationPoint, ...], int]:
    """Return accuracy and agreement when each class keeps its k leading eigenvectors.

    Linear and constant terms are always kept. Every k is tried; all are read from the same
    contributions, summed up in order of |λ|.

    Cost: O(images · classes · in²) time, O(IMAGES_AT_ONCE · classes · in) memory.

    Args:
        eigs: whole spectra of the class-centred forms.
        images: (batch, in) float64.
        labels: (batch,).
        full: (batch,), the predictions of the full model.

    Returns:
        Points at the k of KEPT and at the k returned second: the fewest eigenvectors from which
        on accuracy stays within ACCURACY_DROP of the accuracy with all of them.
    """
    width = eigs.eigenvalues.shape[1]
    right, agreeing = torch.zeros(width + 1), torch.zeros(width + 1)
    for start in range(0, len(images), IMAGES_AT_ONCE):
        rows = slice(start, start + IMAGES_AT_ONCE)
        predicted = predictions(eigs, images[rows])  # (width + 1, images)
        right += (predicted == labels[rows]).sum(dim=1)
        agreeing += (predicted == full[rows]).sum(dim=1)
    accuracy, agreement = right.double() / len(images), agreeing.double() / len(images)
    worse = torch.nonzero(accuracy < accuracy[-1] - ACCURACY_DROP - 1e-12).flatten()
    enough = int(worse[-1]) + 1 if len(worse) > 0 else 0
    kept = sorted({k for k in KEPT if k < width} | {enough, width})
    points = (TruncationPoint(k, float(accuracy[k]), float(agreement[k])) for k in kept)
    return tuple(points), enough


def predictions(eigs: EigenDecomposition, images: Tensor) -> Tensor:
    """Return the predicted class for every number of eigenvectors kept, (in + 1, batch)."""
    parts = eigs.contributions(images)  # (classes, batch, in)
    none = (parts.linear + parts.constant[:, None])[..., None]
    scores = torch.cat([none, none + parts.pairs.cumsum(dim=2)], dim=2)
    return scores.argmax(dim=0).T
