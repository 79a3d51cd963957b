"""Which input latents an eigenvector points to."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import blocks
from bilens.algebra.interactions.feature_factors import check_dictionary
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count
from bilens.interp.records import NearestLatents

ROWS = 4096  # eigenvectors compared at a time: (ROWS, features) cosines are held


def nearest_latents(
    g: QuadraticMap, eigenvectors: Tensor, dictionary: Tensor, num: int = 5
) -> NearestLatents:
    """Return the columns of a dictionary of largest |cosine| with each eigenvector.

    Cost: O(vectors · features · in) time, O(4096 · features) memory.

    Args:
        g: the map whose input the dictionary writes.
        eigenvectors: (outputs, k, in), unit rows; NaN where a form failed.
        dictionary: D, (in, features).
        num: how many a vector; fewer where there are fewer features.

    Raises:
        ShapeError: If the dictionary does not fit the map.
        UsageError: If num is less than 1.
    """
    num = min(check_count("num", num, minimum=1), check_dictionary(g, dictionary))
    columns = dictionary.detach().to(eigenvectors)
    lengths = torch.linalg.vector_norm(columns, dim=0)
    units = columns / torch.where(lengths > 0, lengths, 1.0)
    vectors = eigenvectors.flatten(0, 1)
    found, cosines = [], []
    for part in blocks(len(vectors), ROWS):
        overlap = vectors[part] @ units
        sizes, places = overlap.abs().topk(num, dim=1)
        missing = sizes.isnan()
        found.append(places.masked_fill(missing, -1))
        cosines.append(overlap.gather(1, places))
    latents, cosine = torch.cat(found), torch.cat(cosines)
    shape = (*eigenvectors.shape[:2], num)
    return NearestLatents(
        latents.view(shape),
        cosine.view(shape),
        (cosine * lengths[latents.clamp(min=0)]).view(shape),
    )
