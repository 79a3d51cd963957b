"""Finds tensors of one file as rows, or columns, of a tensor of the other that holds several.

Rows lie one behind the other (q, k and v; a stack of experts), take turns (gate and up), stand
head by head, or are those of one tensor whose blocks stand in another order (gates of a GRU).
"""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from itertools import product
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bilens.algebra.matrix_change import spacing
from bilens.findings.tensor_likeness import (
    HALF,
    Matching,
    TensorPair,
    agree,
    in_shape_of,
    numbers_in,
    pair_of,
    random_directions,
    squeezed,
)
from bilens.io.byte_ranges import Block
from bilens.io.contents import Contents
from bilens.io.stored_mlp import StoredTensor
from bilens.io.tensor_names import canonical
from bilens.records.tensor_changes import TensorChange

AT_ONCE = 1024  # rows whose nearest ones are looked for
PROBED = 32  # rows that are looked for first
# Gain, shift, mean and variance, as torch, Keras and Paddle call them.
NORMS = (
    ("weight", "bias", "running_mean", "running_var"),
    ("gamma", "beta", "moving_mean", "moving_variance"),
    ("w_0", "b_0", "w_1", "w_2"),
)
# What is added to a variance where no file says it, as torch and Keras do, Keras' ResNets, others.
USUAL_EPSILONS = (1e-5, 1e-3, 1.001e-5, 1e-4, 1e-6)
FACTOR = 1.5  # spacings that a factor is away: of a sum, a root, a product
FEW = 4  # one row in so many may not be found behind the one before, or there is no order in them

Part: TypeAlias = tuple[StoredTensor, StoredTensor, tuple[int, ...]]  # part, whose, order of axes
Sketches: TypeAlias = dict[tuple[str, str, tuple[int, ...]], Tensor]


def match_parts(found: Matching) -> None:
    """Pair what is left of one file with parts of what is left of the other.

    What no number tells is the last part, where it alone is left and has its shape.
    """
    sketches: Sketches = {}
    for side, left, others in (
        ("model", found.model, found.baseline),
        ("baseline", found.baseline, found.model),
    ):
        for whole in sorted(left.values(), key=lambda one: -prod(one.shape)):
            for order in orders_of(whole):
                parts, rest = parts_of(side, whole, order, [*others.values()], sketches)
                if parts:
                    del left[whole.name]
                    left |= {} if rest is None else {rest.name: rest}
                    for part, small, way in parts:
                        del others[small.name]
                        new, old = (part, small) if side == "model" else (small, part)
                        found.pairs.append(pair_of(new, in_shape_of(new, old, way), "part"))
                    break


def matrix_sides(tensor: StoredTensor) -> tuple[int, ...]:
    """Return the shape of a tensor as a matrix, or a vector: a stack has all rows in one."""
    first, *rest = squeezed(tensor.shape) or (1,)
    return (first * rest[0], rest[1]) if len(rest) == 2 else (first, *rest)


def orders_of(tensor: StoredTensor) -> list[tuple[int, ...]]:
    """Return the orders of the axes of a matrix or a stack, or of a vector; else none."""
    axes = len(squeezed(tensor.shape))
    known: dict[int, list[tuple[int, ...]]] = {1: [(0,)], 2: [(0, 1), (1, 0)], 3: [(0, 1)]}
    return known.get(axes, [])


def parts_of(
    side: str,
    whole: StoredTensor,
    order: tuple[int, ...],
    others: Sequence[StoredTensor],
    sketches: Sketches,
) -> tuple[list[Part], StoredTensor | None]:
    """Return the tensors that are parts of one, and the rows of it that are left."""
    count, *width = (matrix_sides(whole)[axis] for axis in order)
    free, found, taken_ones = torch.ones(count, dtype=torch.bool), list[Part](), set[str]()
    kept = [item for item in fitting(others, width) if 0 < item[2] <= count]
    keys = [(side, whole.name, order), *(("", f"{side} {s.name}", way) for s, way, _ in kept)]
    for key, one in zip(keys, (whole, *(small for small, _, _ in kept)), strict=True):
        if key not in sketches:
            sketches[key] = sketch_rows(one, key[2])
    rows, *smaller = (sketches[key] for key in keys)
    near = are_near(rows, smaller)
    for (small, way, height), sketch, likely in zip(kept, smaller, near, strict=True):
        if not likely or small.name in taken_ones or height > int(free.sum()):
            continue
        for place in find_rows(rows, sketch, free):
            part = rows_of(whole, order, place)
            if agree(numbers_in(part), numbers_in(in_shape_of(part, small, way))):
                found.append((part, small, way))
                free[place] = False
                taken_ones.add(small.name)
                break
    rest = free.nonzero()[:, 0]
    last = rows_of(whole, order, rest) if found and len(rest) else None
    fits: list[Part] = [
        (last, small, way)
        for small, way, height in fitting(others, width)
        if last is not None and small.name not in taken_ones and height == len(rest)
    ]
    if len(fits) == 1:
        found, last = found + fits, None
    grown = len(found) == 1 and last is not None  # one tensor that became larger is another one
    return ([], None) if grown else (found, last)


def fitting(
    others: Sequence[StoredTensor], width: Sequence[int]
) -> Iterator[tuple[StoredTensor, tuple[int, ...], int]]:
    """Yield the tensors whose rows are as wide, with the order of their axes and their number."""
    for one in others:
        for way in orders_of(one) if len(squeezed(one.shape)) < 3 else ():
            height, *rest = (matrix_sides(one)[axis] for axis in way)
            if rest == [*width]:
                yield one, way, height


def sketch_rows(one: StoredTensor, order: tuple[int, ...]) -> Tensor:
    """Return (rows, directions) what rows are along random directions; of a vector its numbers."""
    rows = numbers_in(one).float().reshape(matrix_sides(one)).permute(order)
    return rows @ random_directions(1, rows.shape[1]).T if rows.ndim == 2 else rows[:, None]


def find_rows(whole: Tensor, small: Tensor, free: Tensor) -> Iterator[Tensor]:
    """Yield the rows of a whole that may be those of a part, by their sketches."""
    left, steps = free.nonzero()[:, 0], torch.arange(len(small))
    most = HALF * float(small.square().sum()) / len(small)
    first = left[: len(small)]
    if float((whole[first] - small).square().sum()) <= most * len(small):
        yield first
    place = left[torch.cat([part.indices for part in nearest_rows(whole[left], small)])]
    moves = place.diff()
    in_turns = len(moves) > 0 and bool((moves == moves[0]).all())
    in_blocks = int((moves != 1).sum()) * FEW <= len(place)
    if (in_turns or in_blocks) and len({*place.tolist()}) == len(place):
        yield place
    start = int((place - steps).mode().values)
    if 0 <= start <= len(whole) - len(small) and bool(free[steps + start].all()):
        yield steps + start


def are_near(whole: Tensor, others: Sequence[Tensor]) -> list[bool]:
    """Tell of each of several tensors whether rows like some of its own are in a whole."""
    if whole.shape[1] == 1 or not others:  # some number or other is near to each
        return [True] * len(others)
    probes = [one[:: max(len(one) // PROBED, 1)] for one in others]
    away = torch.cat([part.values for part in nearest_rows(whole, torch.cat(probes))]).square()
    parts = zip(torch.split(away, [len(one) for one in probes]), probes, strict=True)
    return [bool(part.sum() <= HALF * probe.square().sum()) for part, probe in parts]


def nearest_rows(whole: Tensor, rows: Tensor) -> list[Any]:
    """Return how far the nearest row of a whole is from each, and which, a block at a time."""
    exact = "donot_use_mm_for_euclid_dist" if rows.shape[1] == 1 else "use_mm_for_euclid_dist"
    return [
        torch.cdist(part, whole, compute_mode=exact).min(1) for part in torch.split(rows, AT_ONCE)
    ]


def rows_of(whole: StoredTensor, order: tuple[int, ...], rows: Tensor) -> StoredTensor:
    """Return rows of a tensor, or its columns, as a tensor of its own."""
    width = [matrix_sides(whole)[axis] for axis in order[1:]]
    first, last = int(rows[0]), int(rows[-1]) + 1
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    said = f"{':, ' if order == (1, 0) else ''}{first}:{last}{f':{step}' if step != 1 else ''}"
    if len(squeezed(whole.shape)) == 3 and len(rows) == squeezed(whole.shape)[1]:
        said = str(first // len(rows))  # a matrix of a stack
    return replace(
        whole,
        name=f"{whole.name}[{said}]",
        shape=(len(rows), *width),
        block=(),
        fetch=partial(read_rows, whole, order, rows),
        locate=lambda _: (),
    )


def read_rows(whole: StoredTensor, order: tuple[int, ...], rows: Tensor, block: Block) -> Tensor:
    return numbers_in(whole).reshape(matrix_sides(whole)).permute(order)[rows][block]


# ---- batch normalisations that are multiplied into the weights before them


def match_folded(found: Matching, held: Mapping[str, Contents]) -> list[TensorChange]:
    """Take normalisations of one file that are part of weights of the other out of a matching.

    Math: (W x + b − mean) γ / √(variance + ε) + β is one map again, s W and s (b − mean) + β with
        s = γ / √(variance + ε). All four tensors have to be left of one file alone;
        ε is one that its header in `held` says, else a usual one, and one that s allows.
    """
    changes = list[TensorChange | None]()
    for side, other in (("baseline", "model"), ("model", "baseline")):
        if not [*norms_in(getattr(found, other))]:
            norms = [*norms_in(getattr(found, side))]
            said = held[side].epsilons() if norms and side in held else ()
            changes += (match_norm(found, names, side, other, said) for names in norms)
    return [one for one in changes if one is not None]


def match_norm(
    found: Matching, names: tuple[str, ...], side: str, other: str, said: Collection[float]
) -> TensorChange | None:
    """Take a normalisation out of a matching, where weights of the other file have it in them."""
    stored = [getattr(found, side)[one] for one in names]
    norm = [numbers_in(one).double() for one in stored]
    for plain, made, axis in weights_of(found, side, other, len(norm[0])):
        whole = [numbers_in(one).double() for one in (plain, made)]
        rows, scaled = (one.movedim(axis, 0).flatten(1) for one in whole)
        steps = [half_a_step(one, kept) for one, kept in zip(norm, stored, strict=True)]
        loss = FACTOR * max(torch.finfo(one.dtype).eps for one in (plain, made, *stored))
        sign, gain = torch.where(norm[0] < 0, -1, 1), norm[0].abs()
        low, high = factors_between(rows, sign[:, None] * scaled, half_a_step(rows, plain), made)
        low, high = low / (1 + loss), high * (1 + loss)
        nearer = ((gain - steps[0]).clamp(min=0) / high).square() - (norm[3] + steps[3])
        farther = ((gain + steps[0]) / low).square() - (norm[3] - steps[3])
        least, most = float(nearer.max()), float(farther.min())
        # in float32 one is off by less than a millionth of it
        fits = (
            one for one in said or USUAL_EPSILONS if least - 1e-6 * one <= one <= most + 1e-6 * one
        )
        epsilon = next(fits, None)
        if epsilon is None or bool((low > high).any()) or not rows.any():
            continue
        scale = norm[0] / (norm[3] + epsilon).sqrt()
        scale = sign * scale.abs().clamp(low, high)
        residual = float((scaled - scale[:, None] * rows).norm() / scaled.norm())
        unsure = torch.minimum(high - low, scale.abs()) + loss * scale.abs()
        bias = bias_of(found, side, other, stored, scale, unsure)
        if bias:
            names_used = {side: {*names, plain.name, *bias[1:]}, other: {made.name, bias[0]}}
            take_out(found, names_used)
            new, old = (made, plain) if side == "baseline" else (plain, made)
            same_name = canonical(new.name) == canonical(old.name)
            found.pairs.append(TensorPair(new, old, "folded", placed=same_name))
            return TensorChange(
                name=new.name, kind="other", layer=None, dtype=new.storage, state="folded",
                baseline_dtype=old.storage, baseline_name=old.name, entries=prod(new.shape),
                norm=names[0].replace("/", ".").rpartition(".")[0], residual=residual,
                epsilon=epsilon, assumed=not said,
                full=min(rows.shape), rank=0,
                size=float(whole[side == "model"].norm()),
            )  # fmt: skip
    return None


def norms_in(left: Mapping[str, StoredTensor]) -> Iterator[tuple[str, ...]]:
    """Yield gain, shift, mean and variance of the normalisations of which all four are there."""
    for name in left:
        for gain, shift, mean, variance in NORMS:
            stem, ending, more = name.rpartition(mean)
            names = tuple(f"{stem}{one}{more}" for one in (gain, shift, mean, variance))
            shapes = {left[one].shape if one in left else () for one in names}
            if ending and more in ("", ":0") and shapes == {left[name].shape[:1]}:
                yield names


def weights_of(
    found: Matching, side: str, other: str, outputs: int
) -> Iterator[tuple[StoredTensor, StoredTensor, int]]:
    """Yield weights with so many outputs, what may be the same in the other file, and the axis."""
    both = [(getattr(x, side), getattr(x, other)) for x in found.pairs if not x.same]
    both += product(getattr(found, side).values(), getattr(found, other).values())
    for plain, made in both:
        turned = len(made.shape) == 2 and plain.shape == made.shape[::-1] != made.shape
        plain = in_shape_of(made, plain, (1, 0)) if turned else plain
        alike = plain.shape == made.shape and len(made.shape) > 1
        for axis in (0, 1, -1) if alike and plain.dtype.is_floating_point else ():
            if made.shape[axis] == outputs and made.dtype.is_floating_point:
                yield plain, made, axis


def bias_of(
    found: Matching,
    side: str,
    other: str,
    norm: Sequence[StoredTensor],
    scale: Tensor,
    unsure: Tensor,
) -> tuple[str, ...]:
    """Return the bias with a normalisation in it, and the one before it where there is any.

    `unsure` is how far away each factor may be; each number is held to its own rounding.
    """
    mine, theirs = (
        [*getattr(found, one).values(), *(getattr(pair, one) for pair in found.pairs)]
        for one in (side, other)
    )
    _, shift, mean, _ = (numbers_in(one).double() for one in norm)
    steps = [half_a_step(one, kept) for one, kept in ((shift, norm[1]), (mean, norm[2]))]
    for made in (one for one in theirs if one.shape == shift.shape):
        numbers = numbers_in(made).double()
        for bias in (None, *(one for one in mine if one.shape == shift.shape)):
            given = 0 * shift if bias is None else numbers_in(bias).double()
            own = 0 if bias is None else half_a_step(given, bias)
            most = half_a_step(numbers, made) + steps[0] + scale.abs() * (steps[1] + own)
            away = numbers - (shift + scale * (given - mean))
            if bool((away.abs() <= most + unsure * (given.abs() + mean.abs())).all()):
                return (made.name,) if bias is None else (made.name, bias.name)
    return ()


def half_a_step(numbers: Tensor, stored: StoredTensor) -> Tensor:
    """Return how far rounding may have moved each number: as stored, and as a product before."""
    return (spacing(numbers.abs(), stored.dtype) + spacing(numbers.abs(), torch.float32)) / 2


def factors_between(
    rows: Tensor, scaled: Tensor, step: Tensor, made: StoredTensor
) -> tuple[Tensor, Tensor]:
    """Return the least and largest s ≥ 0 of each row with s W = W′ but for each one's rounding."""
    other, size = half_a_step(scaled, made), rows.abs()
    value = torch.where(rows == 0, scaled.abs(), rows.sign() * scaled)
    low = ((value - other) / (size + step)).amax(1).clamp(min=0)
    high = torch.where(size > step, (value + other) / (size - step), torch.inf).amin(1)
    return low, high


def take_out(found: Matching, used: Mapping[str, set[str]]) -> None:
    """Take tensors by their names out of what is left of each file, and out of pairs."""
    for side, names in used.items():
        left = getattr(found, side)
        for name in names & left.keys():
            del left[name]
        found.pairs[:] = [one for one in found.pairs if getattr(one, side).name not in names]
