"""Hidden units that do nothing, or compute the same as another one, whatever the inputs are."""

import math

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import CLAMPED, Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer
from bilens.algebra.gram.kernel import blocks, nonzero, product_dtype, rows_within, unit_rows
from bilens.records.layer_audit import Units

DEAD = 1e-6  # of the weights of the median unit
SAME = 2.0**-8  # how far weights of one unit, rounded to bfloat16, are apart, relative


def read_units(layer: Layer) -> Units:
    """Return how many hidden units are dead, closed for every input, or doubled."""
    empty, closed, size = ~has_weights(layer), is_closed(layer), relative_size(layer)
    alive = (size > DEAD * float(size[~empty].median())) if not bool(empty.all()) else ~empty
    alive &= ~closed
    doubled, largest = count_doubles(layer, alive)
    signs = sum(sign_counts for sign_counts, _ in freedoms(layer))
    return Units(
        dead=int((~alive & ~closed & ~empty).sum()),
        never_active=int((closed & ~empty).sum()),
        duplicates=doubled,
        largest_overlap=largest,
        overlap_null=null_overlap(int(alive.sum()), layer.d_in, len(branches(layer)), signs),
        empty=int(empty.sum()),
    )


def branches(layer: Layer) -> tuple[tuple[Tensor, Tensor | None], ...]:
    if isinstance(layer, GLUWeights):
        return (layer.gate, layer.gate_bias), (layer.value, layer.value_bias)
    return ((layer.up, layer.up_bias),)


def with_bias(weight: Tensor, bias: Tensor | None) -> Tensor:
    """Return rows of a branch with their biases as a further column."""
    return torch.cat([weight, bias_of(weight, bias)[:, None]], dim=1)


def bias_of(weight: Tensor, bias: Tensor | None) -> Tensor:
    return weight.new_zeros(len(weight)) if bias is None else bias


def has_weights(layer: Layer) -> Tensor:
    """Return which units have any weight; those without are padding, or were pruned."""
    found: Tensor = layer.down.any(dim=0)
    for branch in branches(layer):
        found = found | with_bias(*branch).any(dim=1)
    return found


def is_closed(layer: Layer) -> Tensor:
    """Return which units have an activation that is zero for every input, though it has a bias."""
    weight, bias = branches(layer)[0]
    offset = bias_of(weight, bias)
    return ~weight.any(dim=1) & (offset != 0) & (layer.phi(offset) == 0)


def relative_size(layer: Layer) -> Tensor:
    """Return the size of the weights of each unit, between 0 and 1.

    Each weight counts beside the largest one of the same input, bias or output: in which unit an
    input is measured does not matter.
    """
    down = layer.down.abs()
    size: Tensor = (down / nonzero(down.amax(dim=1))[:, None]).amax(dim=0)
    for place, branch in enumerate(branches(layer)):
        rows = with_bias(*branch).abs()
        reach = (rows / nonzero(rows.amax(dim=0))).amax(dim=1)
        if place == 0 and float(layer.phi(rows.new_zeros(1))) != 0:  # open without any weight
            reach = torch.ones_like(reach)
        size = size * reach
    return size


def freedoms(layer: Layer) -> list[tuple[bool, bool]]:
    """Return of each branch whether its sign matters, and whether its scale does.

    Where it does not, φ(−t) is ± φ(t), or φ(ct) a multiple of φ(t) for every c > 0.
    """
    found = [changes_with(layer.phi)]
    if isinstance(layer, GLUWeights):  # the value is limited there, or a linear map
        found.append((True, True) if layer.phi.name == CLAMPED else (False, False))
    return found


def changes_with(phi: Activation) -> tuple[bool, bool]:
    t = torch.linspace(0.25, 8, 32, dtype=torch.float64)
    here, there = phi(t), phi(-t)
    both, doubled = torch.cat([here, there]), phi(2 * torch.cat([t, -t]))
    sign = not (torch.allclose(there, here) or torch.allclose(there, -here))
    return sign, not torch.allclose(doubled, both * doubled[0] / both[0])


def count_doubles(layer: Layer, alive: Tensor) -> tuple[int, float]:
    """Return how many pairs of units compute the same up to scale, and the largest overlap.

    The overlap is the cosine of rows of weights, biases aside, that of the branch where it is less.
    """
    parts = [
        Rows(weight[alive], bias_of(weight, bias)[alive], *free)
        for (weight, bias), free in zip(branches(layer), freedoms(layer), strict=True)
    ]
    count, largest, units = 0, 0.0, int(alive.sum())
    for block in blocks(units, rows_within(4 * layer.d_in + 8 * units)):
        same, overlap = pairs_of(parts, parts, block)
        if layer.phi.name == "identity" and len(parts) == 2:  # branches may be exchanged
            others = pairs_of(parts, parts[::-1], block)
            same, overlap = same | others[0], torch.maximum(overlap, others[1])
        count += int(same.triu(1).sum())  # each pair once, and none with itself
        largest = max(largest, float(overlap.triu(1).max()))
    return count, min(largest, 1.0)


class Rows:
    """The affine functions of one branch, each as a direction, a length and an offset."""

    def __init__(self, weight: Tensor, bias: Tensor, sign: bool, scale: bool) -> None:
        unit, length = unit_rows(weight)
        constant = length == 0  # all constants are multiples of each other
        self.direction = torch.cat([unit, constant[:, None]], dim=1).to(product_dtype(weight))
        self.length = torch.where(constant, 1.0, length)
        self.offset = torch.where(constant, 0.0, bias / self.length)
        self.sign, self.scale = sign, scale


def pairs_of(ours: list[Rows], theirs: list[Rows], block: slice) -> tuple[Tensor, Tensor]:
    """Return which pairs of a block and what follows are the same, and how much they overlap."""
    same, least = None, None
    for one, other in zip(ours, theirs, strict=True):
        cosine = one.direction[block] @ other.direction[block.start :].T
        side = torch.ones_like(cosine) if one.sign else cosine.sign()
        overlap = cosine * side
        near = overlap >= 1 - SAME**2 / 2
        near &= is_near(one.offset[block, None], side * other.offset[block.start :])
        if one.scale:
            near &= is_near(one.length[block, None], other.length[block.start :])
        same = near if same is None else same & near
        least = overlap if least is None else torch.minimum(least, overlap)
    assert same is not None, "a layer has a branch"
    assert least is not None, "likewise"
    return same, least


def is_near(ours: Tensor, theirs: Tensor) -> Tensor:
    return (ours - theirs).abs() <= SAME * torch.maximum(ours.abs(), theirs.abs())


def null_overlap(units: int, d_in: int, num_branches: int, signs: int = 0) -> float:
    """Return the overlap that one pair of random directions is expected to exceed."""
    # cos² of two random unit vectors is Beta(½, (in − 1)/2), and the branches are independent:
    # pairs · P(cos² > t²)^branches = 1; half of it where the sign of a branch counts
    from scipy.special import betainccinv  # slow to import, needed only here

    pairs = units * (units - 1) / 2 / 2**signs
    if pairs < 1 or d_in < 2:
        return 1.0
    share = pairs ** (-1 / num_branches)
    return math.sqrt(float(betainccinv(0.5, (d_in - 1) / 2, share)))
