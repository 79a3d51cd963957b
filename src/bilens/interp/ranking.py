"""Which output latents look like a product of two features."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.base.checks import check_float_tensor
from bilens.base.errors import ShapeError
from bilens.interp.layer_trace import LayerTrace

BINS = 6  # of each feature: two-way tables of 36 cells


@dataclass(frozen=True, eq=False)
class Ranking:
    """Output latents by how much of a circuit they look like, the most interesting first."""

    latents: Tensor  # (num,) int64, in the order of the layer trace
    order: Tensor  # (num,) int64, positions in `latents` by falling score
    score: Tensor  # (num,), 0 … 1; the product of the parts
    pair_share: Tensor  # (num,), (λ₊² + λ₋²) / ‖Q‖², the extreme eigenvalues of either sign
    sign_contrast: Tensor  # (num,), min / max of their sizes
    interaction_share: Tensor
    data: bool


def rank_latents(trace: LayerTrace, inputs: Tensor | None = None) -> Ranking:
    """Order output latents by how nearly they are one product of two different features."""
    values, vectors = trace.eigenpairs.eigenvalues, trace.eigenpairs.eigenvectors
    usable = values.isfinite().all(dim=1)
    values = values.where(usable[:, None], 0.0)
    plus, high = values.max(dim=1)
    minus, low = values.min(dim=1)
    plus, minus = plus.clamp(min=0), -minus.clamp(max=0)
    norm = trace.eigenpairs.norm.where(usable, 0.0)
    relative = torch.stack([plus, minus]) / norm.where(norm > 0, torch.inf)
    pair_share = relative.square().sum(dim=0)
    contrast = torch.minimum(plus, minus) / torch.maximum(plus, minus).where(norm > 0, torch.inf)
    interaction = torch.ones_like(contrast)
    if inputs is not None:
        _, width = check_float_tensor("inputs", inputs, num_axes=2)
        if width != vectors.shape[-1]:
            raise ShapeError(
                f"inputs have {width} entries; the eigenvectors have {vectors.shape[-1]}."
            )
        x, rows = inputs.detach().double(), torch.arange(len(values))
        for row in (contrast > 0).nonzero()[:, 0].tolist():
            one = plus[row].sqrt() * (x @ vectors[rows[row], high[row]])
            other = minus[row].sqrt() * (x @ vectors[rows[row], low[row]])
            interaction[row] = interaction_share(one + other, one - other)
    score = pair_share * contrast * interaction
    return Ranking(
        trace.latents,
        score.argsort(descending=True, stable=True),
        score,
        pair_share,
        contrast,
        interaction,
        data=inputs is not None,
    )


def interaction_share(first: Tensor, second: Tensor) -> Tensor:
    """Return the share of the variance of a product that no sum f(first) + g(second) explains."""
    product = first * second
    product = product - product.mean()
    total = product.square().sum()
    if float(total) == 0:
        return total
    row, column = in_bins(first), in_bins(second)
    cell = row * BINS + column
    count = torch.bincount(cell, minlength=BINS**2).double()
    mean = product.new_zeros(BINS**2).index_add(0, cell, product) / count.clamp(min=1)
    index = torch.arange(BINS**2)
    design = product.new_zeros(BINS**2, 2 * BINS)
    design[index, index // BINS] = 1.0
    design[index, BINS + index % BINS] = 1.0
    weight = count.sqrt()[:, None]
    fit = torch.linalg.lstsq(weight * design, weight * mean[:, None], driver="gelsd").solution
    rest = mean - (design @ fit)[:, 0]
    share: Tensor = ((count * rest.square()).sum() / total).clamp(0.0, 1.0)
    return share


def in_bins(values: Tensor) -> Tensor:
    """Return the bin of each value, 0 … BINS − 1, about equally many in each."""
    levels = torch.linspace(0, 1, BINS + 1, dtype=values.dtype)[1:-1]
    ordered = values.sort().values
    edges = ordered[(levels * (len(values) - 1)).round().long()]
    return torch.bucketize(values, edges)
