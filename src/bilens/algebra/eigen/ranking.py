"""Chooses the pairs of a spectrum to keep, their order and sign, and groups close eigenvalues."""

from typing import Literal

import torch
from torch import Tensor

Which = Literal["magnitude", "largest", "smallest", "both"]
TIE = 1e-8  # relative: sizes that agree to this are equal, so that rounding decides nothing
CLUSTER_TOLERANCE = 1e-8  # of the largest |λ|: closer eigenvalues are reported as one subspace


def ranked(values: Tensor, vectors: Tensor, k: int, which: Which) -> tuple[Tensor, Tensor, Tensor]:
    """Return k values of a whole spectrum (n,), their vectors (k, in) and positions, in order."""
    # By falling |λ|; sizes that agree to 1e-8 are equal, and the positive eigenvalue comes first.
    # The largest component of each vector is positive, the first one where sizes agree to 1e-8.
    positions = chosen_positions(values, k, which)
    return values[positions], with_sign(vectors[positions]), positions


def chosen_positions(values: Tensor, k: int, which: Which) -> Tensor:
    """Return the positions of the k values that are kept, (k,), in the order of `ranked`."""
    by_size = by_size_and_sign(values)
    if which == "magnitude":
        return by_size[:k]
    by_value = torch.argsort(values, descending=True)
    upper, lower = ends(k, which)
    kept = torch.cat([by_value[:upper], by_value[len(values) - lower :]])
    return by_size[torch.isin(by_size, kept)]


def ends(k: int, which: Which) -> tuple[int, int]:
    """Return how many of k pairs come from the upper and from the lower end of the spectrum."""
    upper = {"largest": k, "smallest": 0, "both": k - k // 2}[which]
    return upper, k - upper


def with_sign(vectors: Tensor) -> Tensor:
    """Return rows, (..., in), whose largest component is positive."""
    return vectors * leading_signs(vectors)[..., None]


def leading_signs(vectors: Tensor) -> Tensor:
    """Return the sign of the largest component of rows, (..., in) → (...): 1 or −1."""
    sizes = vectors.abs()
    leading = (sizes >= sizes.amax(dim=-1, keepdim=True) * (1 - TIE)).int().argmax(dim=-1)
    chosen = vectors.gather(-1, leading[..., None])[..., 0]
    return torch.where(chosen < 0, -1.0, 1.0).to(vectors.dtype)


def by_size_and_sign(values: Tensor) -> Tensor:
    """Return the order of falling |λ| along the last axis, where rounding decides no sign."""
    order = torch.argsort(values.abs(), dim=-1, descending=True, stable=True)
    ties = starts_of_ties(values.abs().gather(-1, order)).cumsum(dim=-1)
    negative = (values.gather(-1, order) < 0).long()
    return order.gather(-1, torch.argsort(2 * ties + negative, dim=-1, stable=True))


def starts_of_ties(sizes: Tensor) -> Tensor:
    """Tell where falling sizes begin that do not agree to TIE with those before, (..., n) bool."""
    # All sizes of a tie agree with its largest one: a chain of neighbours that agree, of which the
    # ends do not, is cut, so that a tie never hides a size that is larger by more.
    positions = torch.arange(sizes.shape[-1], device=sizes.device).expand_as(sizes)
    starts = positions == 0
    starts[..., 1:] |= sizes[..., :-1] - sizes[..., 1:] > TIE * sizes[..., :-1]
    while True:  # once more for each cut of the longest chain
        largest = sizes.gather(-1, torch.where(starts, positions, 0).cummax(dim=-1).values)
        beyond = largest - sizes > TIE * largest
        first = beyond.clone()  # what lies beyond is the rest of a tie
        first[..., 1:] &= ~beyond[..., :-1]
        if not bool(first.any()):
            return starts
        starts = starts | first


def clusters(values: Tensor, rounding_bound: float) -> tuple[Tensor, Tensor]:
    """Return the cluster of each value of a whole spectrum, (n,), and how many share it, (n,)."""
    # Neighbours closer than CLUSTER_TOLERANCE of the largest |λ|, or than the rounding, are one
    # cluster. It is found before any selection, so that a cut through it is seen.
    limit = max(CLUSTER_TOLERANCE * float(values.abs().max()), rounding_bound)
    nothing = values.new_full((1, 0), torch.nan)
    labels, sizes = partial_clusters(values[None], nothing, values.new_full((1,), limit))
    return labels[0], sizes[0]


def partial_clusters(values: Tensor, rivals: Tensor, limit: Tensor) -> tuple[Tensor, Tensor]:
    """Return the cluster of each value, (num, k), and how many share it, as far as it is known."""
    # Values closer than `limit` (num,) cannot be told apart. One of the rivals (num, any; NaN for
    # none) that was left out and belongs to a cluster counts; an eigenvalue no basis has met does
    # not.
    ordered = values.sort(dim=1, descending=True)
    starts = torch.ones_like(ordered.indices)
    starts[:, 1:] = (ordered.values[:, :-1] - ordered.values[:, 1:] > limit[:, None]).long()
    labels = torch.empty_like(starts).scatter_(1, ordered.indices, starts.cumsum(dim=1) - 1)
    counts = torch.zeros_like(labels).scatter_add_(1, labels, torch.ones_like(labels))
    for rival in rivals.unbind(dim=1):
        distance, nearest = (values - rival[:, None]).abs().min(dim=1)
        joins = (distance <= limit).long()  # NaN is never close
        counts.scatter_add_(1, labels.gather(1, nearest[:, None]), joins[:, None])
    return labels, counts.gather(1, labels)


def same_values(found: Tensor, whole: Tensor, which: Which, allowed: Tensor) -> Tensor:
    """Tell for which forms values found, (num, k), are those of the whole spectra, (num, n)."""
    k = found.shape[1]
    if which == "magnitude":
        here = found.abs().sort(dim=1, descending=True).values
        there = whole.abs().sort(dim=1, descending=True).values[:, :k]
    else:
        upper, lower = ends(k, which)
        here = found.sort(dim=1, descending=True).values
        there = whole.sort(dim=1, descending=True).values
        there = torch.cat([there[:, :upper], there[:, whole.shape[1] - lower :]], dim=1)
    return ((here - there).abs() <= allowed[:, None]).all(dim=1)
