"""Hidden units that do nothing, or the same as another one; inputs that no unit reads."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import GLUWeights, Layer
from bilens.algebra.gram.kernel import blocks, rows_within, unit_rows
from bilens.records.layer_audit import Units

DEAD = 1e-6  # of the size of the median unit
SHUT = -4.75  # standard deviations: a normal variable is above it but for one in a million
SAME = 0.999  # |cos| of rows that count as one direction: 2.6 degrees
CLOSED_BELOW_ZERO = ("relu", "squared_relu")


def read_units(layer: Layer) -> Units:
    """Return how many hidden units are dead, never active or doubled."""
    size = unit_sizes(layer)
    alive = size > DEAD * float(size.median())
    doubled, largest = overlaps(layer, alive)
    return Units(
        dead=int((~alive).sum()),
        never_active=int((never_active(layer) & alive).sum()),
        duplicates=doubled,
        largest_overlap=largest,
        overlap_null=null_overlap(int(alive.sum()), layer.d_in, len(branches(layer))),
    )


def branches(layer: Layer) -> tuple[tuple[Tensor, Tensor | None], ...]:
    """Return weight and bias of each branch."""
    if isinstance(layer, GLUWeights):
        return (layer.gate, layer.gate_bias), (layer.value, layer.value_bias)
    return ((layer.up, layer.up_bias),)


def with_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return rows of a branch with their biases as a further column."""
    return weight if bias is None else torch.cat([weight, bias[:, None]], dim=1)


def unit_sizes(layer: Layer) -> Tensor:
    """Return ‖down_h‖ times the length of every branch's row, (hidden,): no scale between units."""
    size: Tensor = layer.down.norm(dim=0)
    for weight, bias in branches(layer):
        size = size * with_bias(weight, bias).norm(dim=1)
    return size


def never_active(layer: Layer) -> Tensor:
    """Return which units of a ReLU stay closed under a standard normal input, (hidden,) bool."""
    weight, bias = branches(layer)[0]
    if layer.phi.name not in CLOSED_BELOW_ZERO or bias is None:
        return torch.zeros(len(weight), dtype=torch.bool)
    closed: Tensor = bias < SHUT * weight.norm(dim=1)
    return closed


def overlaps(layer: Layer, alive: Tensor) -> tuple[int, float]:
    """Return how many pairs of units have the same directions, and the largest overlap."""
    rows = [unit_rows(with_bias(*branch)[alive])[0] for branch in branches(layer)]
    count, largest = 0, 0.0
    size = rows_within(4 * rows[0].shape[1] + 2 * len(rows[0]))
    for part in blocks(len(rows[0]), size):
        overlap = torch.stack([(row[part] @ row.T).abs() for row in rows]).amin(dim=0)
        if layer.phi.name == "identity" and len(rows) == 2:
            left, right = rows
            swapped = torch.minimum((left[part] @ right.T).abs(), (right[part] @ left.T).abs())
            overlap = torch.maximum(overlap, swapped)
        overlap = overlap.triu(part.start + 1)  # each pair once, and none with itself
        count += int((overlap >= SAME).sum())
        largest = max(largest, float(overlap.max()))
    return count, min(largest, 1.0)


def null_overlap(units: int, d_in: int, num_branches: int) -> float:
    """Return the overlap that one pair of random directions is expected to exceed."""
    from scipy.special import betainccinv  # slow to import, needed only here

    pairs = units * (units - 1) / 2
    if pairs < 1 or d_in < 2:
        return 1.0
    share = pairs ** (-1 / num_branches)
    return math.sqrt(float(betainccinv(0.5, (d_in - 1) / 2, share)))


def unused_columns(layer: Layer) -> tuple[int, ...]:
    """Return the inputs on which every weight is exactly zero."""
    used = torch.zeros(layer.d_in, dtype=torch.bool)
    for weight, _ in branches(layer):
        used |= (weight != 0).any(dim=0)
    if layer.linear is not None:
        used |= (layer.linear != 0).any(dim=0)
    return tuple((~used).nonzero()[:, 0].tolist())
