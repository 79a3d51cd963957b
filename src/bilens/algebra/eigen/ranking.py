"""Which pairs of a spectrum are kept, in which order, with which sign."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

Which = Literal["magnitude", "largest", "smallest", "both"]
TIE = 1e-8  # relative: sizes that agree to this are equal, so that rounding decides nothing


def ranked(values: Tensor, vectors: Tensor, k: int, which: Which) -> tuple[Tensor, Tensor, Tensor]:
    """Choose k pairs of a whole spectrum; fix order and sign. The one place where that is done.

    Args:
        values: (n,) in any order.
        vectors: (n, in), rows.
        k: how many to keep.
        which: "magnitude" (largest |λ|), "largest", "smallest" (by sign), or "both": half from
            each end, the extra one from the upper end.

    Returns:
        (k,) values, (k, in) vectors and (k,) positions in what was given. By falling |λ|; sizes
        that agree to 1e-8 are equal, and the positive eigenvalue comes first. The largest
        component of each vector is positive, the first one where sizes agree to 1e-8.
    """
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
    sizes = vectors.abs()
    leading = (sizes >= sizes.amax(dim=-1, keepdim=True) * (1 - TIE)).int().argmax(dim=-1)
    signs = torch.where(vectors.gather(-1, leading[..., None]) < 0, -1.0, 1.0).to(vectors.dtype)
    return vectors * signs


def by_size_and_sign(values: Tensor) -> Tensor:
    """Return the order of falling |λ|, in which rounding does not decide between λ and −λ.

    Args:
        values: (..., n); each row is put in order.
    """
    order = torch.argsort(values.abs(), dim=-1, descending=True, stable=True)
    ties = starts_of_ties(values.abs().gather(-1, order)).cumsum(dim=-1)
    negative = (values.gather(-1, order) < 0).long()
    return order.gather(-1, torch.argsort(2 * ties + negative, dim=-1, stable=True))


def starts_of_ties(sizes: Tensor) -> Tensor:
    """Tell where sizes begin that do not agree to TIE with those before, (..., n) bool.

    All sizes of a tie agree with its largest one: a chain of neighbours that agree, of which the
    ends do not, is cut, so that a tie never hides a size that is larger by more.

    Args:
        sizes: (..., n), falling.
    """
    places = torch.arange(sizes.shape[-1]).expand_as(sizes)
    starts = places == 0
    starts[..., 1:] |= sizes[..., :-1] - sizes[..., 1:] > TIE * sizes[..., :-1]
    while True:  # once more for each cut of the longest chain
        largest = sizes.gather(-1, torch.where(starts, places, 0).cummax(dim=-1).values)
        beyond = largest - sizes > TIE * largest
        first = beyond.clone()  # what lies beyond is the rest of a tie
        first[..., 1:] &= ~beyond[..., :-1]
        if not bool(first.any()):
            return starts
        starts = starts | first
