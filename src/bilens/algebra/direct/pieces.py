"""All entries of the symmetric matrix DᵀQD, one block of it at a time."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from bilens.algebra.direct.feature_factors import FeatureFactors
from bilens.algebra.direct.running_top import Locate
from bilens.algebra.gram.blocks import blocks

STRIP = 2**17  # entries: 1 MiB of float64


@dataclass(frozen=True, eq=False)
class Piece:
    """Some entries, and how to name them.

    Attributes:
        values: (n,) float64.
        locate: positions → keys; the key of the entry (m, n) is m · features + n.
    """

    values: Tensor
    locate: Locate


def self_values(factors: FeatureFactors, weight: Tensor, block: int) -> Tensor:
    """Return the diagonal Σ_h w_h (Ld_m)_h (Rd_m)_h, (features,), in O(features · hidden)."""
    hidden = len(weight)

    def diagonal(rows: Tensor) -> Tensor:
        return (rows[:, :hidden] * rows[:, hidden:]).double() @ weight

    parts = blocks(factors.num_features, block)
    return torch.cat([diagonal(factors.rows(part)) for part in parts])


def cross_pieces(factors: FeatureFactors, weight: Tensor, block: int) -> Iterator[Iterator[Piece]]:
    """Yield every entry above the diagonal once, block by block of the upper triangle.

    Math: with P_m = [l, r], S[m, n] = ½ [w∘r, w∘l]_m · [l, r]_n: one matrix product for each
        block, of inner length 2·hidden.
    Cost: 4 · block² · hidden operations and O(block² + block · hidden) memory a block.
    """
    num = factors.num_features
    half = (weight / 2).to(factors.precision)
    for rows in blocks(num, block):
        left, right = factors.rows(rows).tensor_split(2, dim=1)
        weighted = torch.cat([right * half, left * half], dim=1)
        for columns in blocks(num, block, start=rows.start):
            product = weighted @ factors.rows(columns).T
            yield strips(product, rows.start, columns.start, num)


def num_blocks(num_features: int, block: int) -> int:
    """Return how many blocks `cross_pieces` yields."""
    side = -(-num_features // block)
    return side * (side + 1) // 2


def strips(product: Tensor, top: int, edge: int, num: int) -> Iterator[Piece]:
    """Yield the entries of a block above the diagonal of the whole, some rows at a time.

    What is done with the entries takes several passes: a strip stays in the cache meanwhile.

    Args:
        product: a block of the (num, num) matrix.
        top: its first row in the whole.
        edge: its first column in the whole, `top` on the diagonal, otherwise beyond its rows.
        num: features.
    """
    height, width = product.shape
    for rows in blocks(height, max(1, STRIP // width)):
        values = product[rows].double().flatten()
        above = None
        if top == edge:
            inside = torch.ones_like(product[rows], dtype=torch.bool).triu(1 + rows.start)
            above = inside.flatten().nonzero().squeeze(1)
            values = values[above]
        yield Piece(values, partial(locate, above, top + rows.start, edge, width, num))


def locate(
    places: Tensor | None, top: int, edge: int, width: int, num: int, positions: Tensor
) -> Tensor:
    """Return the keys of positions in a strip, or in those `places` of it that were kept."""
    flat = positions if places is None else places[positions]
    return (flat // width + top) * num + flat % width + edge
