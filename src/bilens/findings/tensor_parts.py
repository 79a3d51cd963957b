"""Finds tensors of one file as rows, or columns, of a tensor of the other that holds several.

Rows lie one behind the other (q, k and v in one), take turns (gate and up) or stand head by head.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import partial
from math import prod

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
FEW = 4  # of so many rows that are not found one behind the other, there is no order in them


def match_parts(found: Matching) -> None:
    """Pair what is left of one file with parts of what is left of the other.

    What no number tells is the last part, where it alone is left and has its shape.
    """
    for left, others in ((found.model, found.baseline), (found.baseline, found.model)):
        sketches = dict[tuple[bool, str, tuple[int, ...]], Tensor]()
        for whole in sorted(left.values(), key=lambda one: -prod(one.shape)):
            for order in orders_of(whole):
                parts, rest = parts_of(whole, order, [*others.values()], sketches)
                if parts:
                    del left[whole.name]
                    if rest is not None:
                        left[rest.name] = rest
                    for part, small, way in parts:
                        del others[small.name]
                        old = in_shape_of(part, small, way)
                        if left is found.model:
                            found.pairs.append(pair_of(part, old, "part"))
                        else:
                            found.pairs.append(
                                pair_of(small, in_shape_of(small, part, way), "part")
                            )
                    break


def orders_of(tensor: StoredTensor) -> list[tuple[int, ...]]:
    """Return the orders of the axes of a matrix, or of the one of a vector; else none."""
    axes = len(squeezed(tensor.shape))
    return [(0, 1), (1, 0)][: 2 * (axes == 2)] or [(0,)][: axes == 1]


def parts_of(
    whole: StoredTensor,
    order: tuple[int, ...],
    others: Sequence[StoredTensor],
    sketches: dict[tuple[bool, str, tuple[int, ...]], Tensor],
) -> tuple[list[tuple[StoredTensor, StoredTensor, tuple[int, ...]]], StoredTensor | None]:
    """Return part, tensor that it is and the order of its axes; and the rows that are left."""
    count, *width = (squeezed(whole.shape)[axis] for axis in order)
    free = torch.ones(count, dtype=torch.bool)
    found, tried = list[tuple[StoredTensor, StoredTensor, tuple[int, ...]]](), set[str]()
    for small, way, height in fitting(others, width):
        if small.name in tried or not 0 < height <= int(free.sum()):
            continue
        keys = (True, whole.name, order), (False, small.name, way)
        for key, one in zip(keys, (whole, small), strict=True):
            if key not in sketches:
                sketches[key] = row_sketches(one, key[2])
        rows = find_rows(*(sketches[key] for key in keys), free)
        for place in rows:
            part = rows_of(whole, order, place)
            if agree(numbers_in(part), numbers_in(in_shape_of(part, small, way))):
                found.append((part, small, way))
                free[place] = False
                tried.add(small.name)
                break
    rest = free.nonzero()[:, 0]
    last = rows_of(whole, order, rest) if len(rest) else None
    fits = [
        (last, one, way)
        for one, way, height in fitting(others, width)
        if found and last is not None and one.name not in tried and height == len(rest)
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
        for way in orders_of(one):
            height, *rest = (squeezed(one.shape)[axis] for axis in way)
            if rest == [*width]:
                yield one, way, height


def row_sketches(one: StoredTensor, order: tuple[int, ...]) -> Tensor:
    """Return (rows, directions) what rows are along random directions; of a vector its numbers."""
    rows = numbers_in(one).float().reshape(squeezed(one.shape)).permute(order)
    return rows @ random_directions(1, rows.shape[1]).T if rows.ndim == 2 else rows[:, None]


def find_rows(whole: Tensor, small: Tensor, free: Tensor) -> Iterator[Tensor]:
    """Yield the rows of a whole that may be those of a part, by their sketches."""
    left, nearest, away = free.nonzero()[:, 0], list[Tensor](), 0.0
    for rows in small.split(AT_ONCE):
        exact = "donot_use_mm_for_euclid_dist" if rows.shape[1] == 1 else "use_mm_for_euclid_dist"
        distances, at = torch.cdist(rows, whole[left], compute_mode=exact).min(1)
        nearest.append(left[at])
        away += float(distances.square().sum())
    if not away <= HALF * float(small.square().sum()) and small.shape[1] > 1:
        return
    place, steps = torch.cat(nearest), torch.arange(len(small))
    moves = place.diff()
    regular = len(moves) > 0 and bool((moves == moves[0]).all())
    if (regular or int((moves != 1).sum()) * FEW <= len(place)) and len(place.unique()) == len(
        place
    ):
        yield place
    for start in ((place - steps).mode().values, left[0]):
        rows = steps + start
        if 0 <= int(start) <= len(whole) - len(small) and bool(free[rows].all()):
            yield rows


def rows_of(whole: StoredTensor, order: tuple[int, ...], rows: Tensor) -> StoredTensor:
    """Return rows of a tensor, or its columns, as a tensor of its own."""
    width = [squeezed(whole.shape)[axis] for axis in order[1:]]
    step = int(rows[1] - rows[0]) if len(rows) > 1 else 1
    plain = f"{int(rows[0])}:{int(rows[-1]) + 1}" + (f":{step}" if step != 1 else "")
    name = f"{whole.name}[{':, ' * (order == (1, 0))}{plain}]"
    fetch = partial(taken, whole, order, rows)
    shape = (len(rows), *width)
    return replace(whole, name=name, shape=shape, block=(), fetch=fetch, locate=lambda _: ())


def taken(whole: StoredTensor, order: tuple[int, ...], rows: Tensor, block: Block) -> Tensor:
    return numbers_in(whole).reshape(squeezed(whole.shape)).permute(order)[rows][block]
