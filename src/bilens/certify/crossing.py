"""Where another output takes over along a ray: the roots of quadratic functions of one number."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap

PUSHES = (1e-13, 1e-11, 1e-9, 1e-8)  # beyond the root, until the outputs themselves say so


def margins(f: QuadraticMap, x: Tensor, label: Tensor) -> Tensor:
    """Return f_label(x) − f_j(x) for every output j, (rows, in) → (rows, out); inf for the label.

    Cost: O(rows · hidden · (in + out)).
    """
    y = f(x)
    return (y.gather(1, label[:, None]) - y).scatter(1, label[:, None], torch.inf)


def crossing(f: QuadraticMap, x: Tensor, direction: Tensor, label: Tensor) -> Tensor:
    """Return the smallest t > 0 at which an output overtakes that of the label, at x + t·direction.

    Math: each margin is m + t·slope + t²·bend; 2m / (√(slope² − 4·m·bend) − slope) is its first
        positive root, where there is one.
    Cost: O(rows · hidden · (in + out)).

    Args:
        f: the map, float64.
        x: (rows, in), where the label wins.
        direction: (rows, in).
        label: (rows,).

    Returns:
        (rows,); inf where no output ever overtakes.
    """
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    at_left, at_right = x @ left.T, x @ right.T
    by_left, by_right = direction @ left.T, direction @ right.T
    slope = (at_left * by_right + by_left * at_right) @ down.T
    if f.linear is not None:
        slope = slope + direction @ f.linear.T
    bend = (by_left * by_right) @ down.T
    own = label[:, None]
    slope, bend = slope.gather(1, own) - slope, bend.gather(1, own) - bend
    margin = margins(f, x, label)
    t = 2 * margin / ((slope.square() - 4 * margin * bend).sqrt() - slope)
    t = torch.where(t > 0, t, torch.inf).scatter(1, own, torch.inf)  # NaN is not above 0
    return t.amin(dim=1)


def crossed(f: QuadraticMap, x: Tensor, direction: Tensor, label: Tensor) -> Tensor:
    """Return x + t·direction just beyond the crossing, where the label has lost; NaN where none is.

    The outputs are computed there in float64: what comes back is a counterexample by itself.
    """
    t = crossing(f, x, direction, label)
    found = torch.full_like(x, torch.nan)
    for push in PUSHES:
        rows = (t.isfinite() & found[:, 0].isnan()).nonzero()[:, 0]
        if len(rows) == 0:
            break
        point = x[rows] + (t[rows] * (1 + push))[:, None] * direction[rows]
        lost = (margins(f, point, label[rows]) < 0).any(dim=1)
        found[rows[lost]] = point[lost]
    return found
