"""One way of writing the components of a CP model: order, signs, which row is left."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.cp.factors import Factors, squared_sizes
from bilens.algebra.cp.starts import in_order

TIE = 1e-8  # relative: entries that agree to this are equal, so that rounding decides nothing


def canonical(factors: Factors) -> Factors:
    """Return the same sum by falling component size, with fixed signs and a fixed left row.

    The largest entry of each row is positive, the first one where sizes agree to 1e-8; `down`
    takes the signs. The left row is the one with the larger entry where the two first differ.

    Cost: O(rank · (in + out)).

    Args:
        factors: unit rows in `left` and `right`.
    """
    down, left, right = factors
    left_sign, right_sign = leading_signs(left), leading_signs(right)
    down = down * left_sign * right_sign
    left, right = in_order(left_sign[:, None] * left, right_sign[:, None] * right)
    sizes = squared_sizes(Factors(down, left, right))
    order = torch.argsort(sizes, descending=True, stable=True)
    return Factors(down[:, order], left[order], right[order])


def leading_signs(rows: Tensor) -> Tensor:
    """Return the sign of the largest entry of each row, (rows,)."""
    sizes = rows.abs()
    leading = (sizes >= sizes.amax(dim=1, keepdim=True) * (1 - TIE)).int().argmax(dim=1)
    return torch.where(rows.gather(1, leading[:, None])[:, 0] < 0, -1.0, 1.0).to(rows)
