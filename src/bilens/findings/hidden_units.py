"""Hidden units that do nothing, or the same as another one: on every input, or on inputs seen."""

import math
from functools import reduce
from typing import NamedTuple

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import CLAMPED, Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer
from bilens.algebra.approximation.quadratic_fit import SeenRows
from bilens.algebra.gram.kernel import blocks, nonzero, product_dtype, rows_within, unit_rows
from bilens.records.layer_readings import SeenUnits, Units

DEAD = 1e-6  # of the weights of the median unit
SAME = 2.0**-8  # how far weights of one unit, rounded to bfloat16, are apart, relative
ROWS_AT_ONCE = 1024
MOST_UNITS = 8192  # of which pairs are compared: a matrix of half a gigabyte
MOST_ROWS = 2_000  # that ranks are of, drawn evenly
MASS = 0.99  # of the variance


class UnitBranch(NamedTuple):
    """The affine functions that one branch of each unit is, and what makes another one of them."""

    weight: Tensor  # (hidden, in)
    bias: Tensor  # (hidden,)
    sign: bool  # whether −t is another function
    scale: bool  # whether ct is, with c > 0


Known = tuple[UnitBranch, Tensor, Tensor, Tensor]  # with what `directions` returns of it


def branches(layer: Layer) -> tuple[UnitBranch, ...]:
    def branch(weight: Tensor, bias: Tensor | None, sign: bool, scale: bool) -> UnitBranch:
        bias = weight.new_zeros(len(weight)) if bias is None else bias
        return UnitBranch(weight, bias, sign, scale)

    sign, scale = changes_with(layer.phi)
    if not isinstance(layer, GLUWeights):
        return (branch(layer.up, layer.up_bias, sign, scale),)
    limits = layer.phi.name == CLAMPED  # on the value, too
    return (
        branch(layer.gate, layer.gate_bias, sign, scale),
        branch(layer.value, layer.value_bias, limits, limits),
    )


def changes_with(phi: Activation) -> tuple[bool, bool]:
    """Return whether φ(−t) is no multiple of φ(t), and whether φ(2t) is none."""
    t = torch.linspace(0.25, 8, 32, dtype=torch.float64)
    here, there = phi(t), phi(-t)
    both, doubled = torch.cat([here, there]), phi(2 * torch.cat([t, -t]))
    sign = not (torch.allclose(there, here) or torch.allclose(there, -here))
    return sign, not torch.allclose(doubled, both * doubled[0] / both[0])


def read_units(layer: Layer, classes: bool = False, centre: Tensor | None = None) -> Units:
    """Return how many hidden units are dead, closed for every input, doubled, or without weights.

    A weight is measured beside the largest one of its input, bias or output: in which unit an input
    is measured does not matter. Output weights of `classes` are those beside their mean: what a
    unit adds to all logits changes no answer. Biases are compared at the `centre` of the inputs,
    where it is known: far from it, what they differ by is small beside them.
    """
    parts, down = branches(layer), layer.down - layer.down.mean(dim=0) * classes
    size: Tensor = (down.abs() / nonzero(down.abs().amax(dim=1))[:, None]).amax(dim=0)
    empty = ~layer.down.any(dim=0)
    for place, part in enumerate(parts):
        rows = torch.cat([part.weight, part.bias[:, None]], dim=1).abs()
        empty &= ~rows.any(dim=1)
        reach = (rows / nonzero(rows.amax(dim=0))).amax(dim=1)
        if place == 0 and float(layer.phi(rows.new_zeros(1))) != 0:  # open without any weight
            reach = torch.ones_like(reach)
        size = size * reach
    weight, bias = parts[0][:2]
    closed = ~weight.any(dim=1) & (bias != 0) & (layer.phi(bias) == 0)
    usual = float(size[~empty].median()) if bool((~empty).any()) else 0.0
    alive = (size > DEAD * usual) & ~closed
    columns = nonzero(torch.cat([part.weight[alive] for part in parts]).norm(dim=0))
    left = [
        part._replace(
            weight=part.weight[alive] / columns,  # in whatever unit an input is measured
            bias=(part.bias if centre is None else part.bias + part.weight @ centre)[alive],
        )
        for part in parts
    ]
    doubles, largest = count_doubles(layer, left)
    return Units(
        dead=int((~alive & ~closed & ~empty).sum()),
        never_active=int(closed.sum()),
        duplicates=doubles,
        largest_overlap=largest,
        overlap_null=null_overlap(int(alive.sum()), layer.d_in, len(parts)),
        empty=int(empty.sum()),
    )


def count_doubles(layer: Layer, parts: list[UnitBranch]) -> tuple[int, float]:
    """Return how many pairs of units are the same up to scale, and the largest overlap.

    The overlap is the cosine of rows of weights, biases aside, in the branch where it is less. Rows
    that are the same are so in each weight: the size of one says nothing of what its input does.
    """
    known = [(part, *directions(part)) for part in parts]
    exchanged = [known, known[::-1]] if layer.phi.name == "identity" else [known]
    count, largest, units = 0, 0.0, len(parts[0].weight)
    for block in blocks(units, rows_within(4 * layer.d_in + 8 * units)):
        found = [pairs_of(known, others, block) for others in exchanged]
        count += int(reduce(torch.logical_or, [same for same, _ in found]).sum())
        overlap = reduce(torch.maximum, [overlap for _, overlap in found])
        largest = max(largest, float(overlap.triu(1).max()))
    return count, min(largest, 1.0)


def pairs_of(ours: list[Known], theirs: list[Known], block: slice) -> tuple[Tensor, Tensor]:
    """Return which pairs of a block and what follows are the same, and how much they overlap."""
    both = [*zip(ours, theirs, strict=True)]
    cosines = [rows[block] @ columns[block.start :].T for (_, rows, *_), (_, columns, *_) in both]
    is_even = [not one.sign for one, *_ in ours]
    sizes = (c.abs() if even else c for even, c in zip(is_even, cosines, strict=True))
    overlap = reduce(torch.minimum, sizes)
    same = (overlap >= 1 - SAME**2 / 2).triu(1)  # each pair once, and none with itself
    for pairs in torch.split(same.nonzero(), rows_within(4 * ours[0][1].shape[1])):
        for (mine, other), even, cosine in zip(both, is_even, cosines, strict=True):
            (one, rows, length, offset), (_, columns, width, shift) = mine, other
            turn, (first, second) = cosine[pairs.T[0], pairs.T[1]].sign(), pairs.T + block.start
            turn = turn if even else torch.ones_like(turn)
            # lengths are rounded too
            alike = is_near(rows[first], columns[second] * turn[:, None], 2 * SAME).all(dim=1)
            alike &= is_near(offset[first], turn * shift[second])
            if one.scale:
                alike &= is_near(length[first], width[second])
            same[pairs.T[0], pairs.T[1]] &= alike
    return same, overlap


def directions(part: UnitBranch) -> tuple[Tensor, Tensor, Tensor]:
    """Return rows of unit length, their lengths, and biases over them; constants are all alike."""
    unit, length = unit_rows(part.weight)
    constant = length == 0
    rows = torch.cat([unit, constant[:, None]], dim=1).to(product_dtype(part.weight))
    return rows, length, torch.where(constant, 0.0, part.bias / nonzero(length))


def is_near(ours: Tensor, theirs: Tensor, most: float = SAME) -> Tensor:
    return (ours - theirs).abs() <= most * torch.maximum(ours.abs(), theirs.abs())


def null_overlap(units: int, d_in: int, num_branches: int) -> float:
    """Return the overlap that one pair of random directions is expected to exceed."""
    # cos² of two random unit vectors is Beta(½, (in − 1)/2), and the branches are independent:
    # pairs · P(cos² > t²)^branches = 1
    from scipy.special import betainccinv  # slow to import, needed only here

    pairs = units * (units - 1) / 2
    if pairs < 1 or d_in < 2:
        return 1.0
    share = pairs ** (-1 / num_branches)
    return math.sqrt(float(betainccinv(0.5, (d_in - 1) / 2, share)))


def read_seen_units(layer: Layer, seen: SeenRows) -> SeenUnits:
    """Return which units are silent or alike on all rows that were seen, and how many directions.

    Cost: O(rows · hidden · (in + hidden)) and the ranks of 2,000 rows at most.
    """
    x = torch.cat([seen.x, seen.held_out])
    units, products = len(layer.down.T), None
    largest = x.new_zeros(units, dtype=torch.float64)
    if units <= MOST_UNITS:
        products = largest.new_zeros(units, units)
    for rows in torch.split(x, ROWS_AT_ONCE):
        hidden = layer.hidden(rows.double())
        largest = torch.maximum(largest, hidden.abs().amax(dim=0))
        products = None if products is None else products.addmm_(hidden.T, hidden)
    silent = largest <= DEAD * largest.median()
    duplicates = None
    if products is not None:
        sizes = nonzero(products.diagonal().sqrt())
        cosines = (products / sizes / sizes[:, None])[~silent][:, ~silent].abs()
        duplicates = int((cosines.triu(1) >= 1 - SAME**2 / 2).sum())
    some = x[torch.linspace(0, len(x) - 1, min(len(x), MOST_ROWS)).long()].double()
    hidden = layer.hidden(some)
    return SeenUnits(
        len(x),
        int(silent.sum()),
        duplicates,
        input_rank=directions_of(some),
        hidden_rank=directions_of(hidden),
        output_rank=directions_of(layer.behind(hidden, some)),
    )


def directions_of(rows: Tensor) -> int:
    """Return how many directions hold 99 % of the variance of rows."""
    values = torch.linalg.svdvals(rows - rows.mean(dim=0)).square()
    held = values.cumsum(dim=0) < MASS * values.sum()
    return int(held.sum()) + 1 if float(values.sum()) > 0 else 0
