"""Which inputs a classifier does not use, and how far one of them can move a class."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.certify.input_influence import influence_range
from bilens.certify.input_use import InputRows, linear_part, unused_inputs
from bilens.records.guarantees import Box, Influence, InputUse

ROWS = 64  # inputs whose rows are read at a time
SPARE = 1e-9  # relative: more than the rounding of a limit


def input_use(f: QuadraticMap, centred: QuadraticMap, box: Box) -> InputUse:
    """Return unused inputs of a map, and the strongest input of each class-centred output.

    Cost: O(out · hidden · in²), and a few `influence_range` for each output.
    """
    found = unused_inputs(f)
    limits = influence_limits(centred, box)
    return InputUse(
        unused=tuple(found.unused.nonzero()[:, 0].tolist()),
        num_undecided=int(found.undecided.sum()),
        influence=tuple(strongest(centred, c, limits[c], box) for c in range(f.sizes.d_out)),
    )


def influence_limits(f: QuadraticMap, box: Box) -> Tensor:
    """Return limits that no influence exceeds, (out, in); cheap, and not reached.

    Math: output c as a function of x_i alone is q t² + s t + a constant, so that it varies by at
        most (high − low) · max |2 q t + s| ≤ (high − low) · (|b_i| + 2 Σ_j |q_ij| · max |x_j|).
    """
    rows, width = InputRows.of(f), f.sizes.d_in
    farthest = max(abs(box.low), abs(box.high))
    sums = torch.cat(
        [rows.read(slice(start, start + ROWS)).abs().sum(dim=2) for start in range(0, width, ROWS)],
        dim=1,
    )
    sums = sums + rows.rounding() * width**0.5  # the 1-norm of what a row is off by, at most
    slope = linear_part(f).abs() + 2 * farthest * sums
    limits: Tensor = slope * (box.high - box.low) * (1 + SPARE)
    return limits


def strongest(f: QuadraticMap, output: int, limits: Tensor, box: Box) -> Influence:
    """Return the input that moves an output most: from the largest limit down, until none is left.

    The bound holds for every input: it is the largest one found, and the limits of the others
    are below it.
    """
    ends = (
        torch.full((f.sizes.d_in,), box.low, dtype=torch.float64),
        torch.full((f.sizes.d_in,), box.high, dtype=torch.float64),
    )
    best, bound = None, 0.0
    for place in limits.argsort(descending=True).tolist():
        if best is not None and float(limits[place]) <= bound:
            break
        found = influence_range(f, place, ends, output)
        bound = max(bound, found.bound)
        if best is None or found.reached > best.reached:
            best = found
    assert best is not None, "a map has an input"
    return Influence(output, best.input, bound, best.reached)
