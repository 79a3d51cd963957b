"""Rows brought to unit length, so that products of rows neither overflow nor vanish."""

from __future__ import annotations

import torch
from torch import Tensor


def unit_rows(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows of unit length, and the lengths they had; a row of zeros stays one.

    The lengths are constants for gradients: row = unit · length holds for any constant length,
    so the gradient of a product of the two is that of the row.

    Args:
        rows: (num, in).

    Returns:
        (num, in) and (num,).
    """
    with torch.no_grad():
        largest = rows.abs().amax(dim=1, keepdim=True)
        shrunk = rows / torch.where(largest > 0, largest, 1.0)  # its squares are harmless
        length = shrunk.norm(dim=1, keepdim=True) * largest
        divisor = torch.where(length > 0, length, 1.0)
    return rows / divisor, length.squeeze(1)
