"""Groups of output latents that compute nearly the same quadratic form."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from bilens.algebra.gram.inner_products import output_gram
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import UsageError
from bilens.base.memory import check_memory
from bilens.interp.layer_trace import check_latents

ROUNDING = 1e-12  # of the largest squared norm: a form below it has no direction


@dataclass(frozen=True, eq=False)
class Clusters:
    """Groups of output latents whose quadratic forms point the same way."""

    latents: Tensor  # (num,) int64
    similarity: Tensor  # (num, num), cosine ⟨Q_i, Q_j⟩ / ‖Q_i‖‖Q_j‖, −1 … 1; NaN for a form of zero
    threshold: float  # cosine above which groups were joined (average linkage)
    labels: Tensor  # (num,) int64, cluster of each latent, 0 is the largest cluster
    members: tuple[tuple[int, ...], ...]


def cluster_latents(
    g: QuadraticMap,
    latents: Tensor | None = None,
    *,
    threshold: float = 0.5,
    memory_limit: int | str | None = None,
) -> Clusters:
    """Group output latents by the cosine between their forms, without looking at data."""
    check_type("g", g, QuadraticMap, "use latent_map(f, encoder, offset)")
    if not -1 < threshold < 1:
        raise UsageError(f"threshold={threshold!r}; a cosine between −1 and 1 was expected.")
    chosen = check_latents(latents, g.sizes.d_out)
    num = len(chosen)
    check_memory(
        8 * 6 * num * num,
        f"the similarities of {num} output latents",
        "cluster fewer latents",
        memory_limit,
    )
    down, left, right = g.tensor.down[chosen], g.tensor.left, g.tensor.right
    with torch.no_grad():
        gram = output_gram(down, left, right, down, left, right).cpu()
    squared = gram.diagonal()
    known = squared > ROUNDING * squared.max().clamp(min=torch.finfo(torch.float64).tiny)
    lengths = torch.where(known, squared, torch.nan).sqrt()
    similarity = (gram / lengths / lengths[:, None]).clamp(-1.0, 1.0)
    members = groups(similarity, threshold)
    labels = torch.empty(num, dtype=torch.int64)
    for label, group in enumerate(members):
        labels[list(group)] = label
    return Clusters(chosen, similarity, threshold, labels, members)


def groups(similarity: Tensor, threshold: float) -> tuple[tuple[int, ...], ...]:
    """Return positions that belong together, largest group first, then by first member."""
    from scipy.cluster.hierarchy import fcluster, linkage  # slow to import, needed only here
    from scipy.spatial.distance import squareform

    num = len(similarity)
    if num == 1:
        return ((0,),)
    distance = (1 - similarity).nan_to_num(2.0).numpy().copy()  # a form of zero is like no other
    np.fill_diagonal(distance, 0.0)
    tree = linkage(squareform(distance, checks=False), method="average")
    labels = fcluster(tree, 1 - threshold, criterion="distance")
    found: dict[int, list[int]] = {}
    for position, label in enumerate(labels.tolist()):
        found.setdefault(label, []).append(position)
    return tuple(
        tuple(group) for group in sorted(found.values(), key=lambda group: (-len(group), group))
    )
