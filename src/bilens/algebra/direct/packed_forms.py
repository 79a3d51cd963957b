"""Dense interaction matrices of many output directions, from those of the outputs."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import blocks

ROWS = 8  # of the upper triangle that are formed at a time


@dataclass(frozen=True, eq=False)
class PackedForms:
    """The upper triangles of Q_o for every output o, side by side, in float32.

    Along a direction u the matrix is Σ_o u_o Q_o: one matrix product for many directions, and
    hidden / out times cheaper than forming each one from the factors.

    Attributes:
        triangles: (out, in·(in + 1)/2), row by row.
        places: (in²,) int64, where each entry of the square is in a triangle.
    """

    triangles: Tensor
    places: Tensor

    @classmethod
    def of(cls, down: Tensor, left: Tensor, right: Tensor) -> PackedForms:
        """Form all matrices.

        Math: Q_o[i, j] = ½ Σ_h down_oh (left_hi right_hj + right_hi left_hj) for i ≤ j.
        Cost: O(out · hidden · in²) time, O((out + 8 · hidden / in) · in²) memory.

        Args:
            down: (out, hidden) float32.
            left: (hidden, in) float32.
            right: (hidden, in) float32.
        """
        width = left.shape[1]
        row, column = torch.triu_indices(width, width).to(left.device)
        triangles = left.new_empty(len(down), len(row))
        done = 0
        half = down / 2
        for part in blocks(width, ROWS):
            products = [
                left[:, i, None] * right[:, i:] + right[:, i, None] * left[:, i:]
                for i in range(part.start, part.stop)
            ]
            entries = torch.cat(products, dim=1)
            triangles[:, done : done + entries.shape[1]] = half @ entries
            done += entries.shape[1]
        places = torch.empty(width, width, dtype=torch.int64, device=left.device)
        places[row, column] = places[column, row] = torch.arange(len(row), device=left.device)
        return cls(triangles, places.flatten())

    def along(self, directions: Tensor) -> Tensor:
        """Return the triangles of Σ_o u_o Q_o for (num, out) directions, (num, in·(in + 1)/2)."""
        return directions @ self.triangles

    def square(self, triangle: Tensor) -> Tensor:
        """Return one triangle as a symmetric (in, in) matrix."""
        width = round(len(self.places) ** 0.5)
        return triangle.index_select(0, self.places).view(width, width)


def packed_bytes(d_out: int, d_hidden: int, d_in: int) -> int:
    """Return the memory of `PackedForms`, and of what it takes to form them."""
    return 4 * d_out * d_in * (d_in + 1) // 2 + 8 * d_in**2 + 4 * 3 * d_hidden * ROWS * d_in
