"""Finds tensors of one file as rows, or columns, of a tensor of the other that holds several.

Rows lie one behind the other (q, k and v; a stack of experts), take turns (gate and up), stand
head by head, or are those of one tensor whose blocks stand in another order (gates of a GRU).
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod
from typing import Any, TypeAlias

import torch
from torch import Tensor

from bilens.findings.tensor_likeness import (
    HALF,
    Matching,
    agree,
    in_shape_of,
    numbers_in,
    pair_of,
    random_directions,
    squeezed,
)
from bilens.io.byte_ranges import Block
from bilens.io.stored_mlp import StoredTensor

AT_ONCE = 1024  # rows whose nearest ones are looked for
PROBED = 32  # rows that are looked for first
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
