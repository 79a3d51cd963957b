"""Which tensor of a model is which one of its baseline: by name, else by the numbers in it.

Equal constants are matched in their order, which is as good as any other. Where both files have a
name, another tensor takes its place for equal numbers alone.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

import torch
from torch import Tensor

from bilens.base import Progress, silent
from bilens.findings.tensor_likeness import (
    HALF,
    How,
    Matching,
    agree,
    in_shape_of,
    numbers_in,
    orders_between,
    pair_of,
    same_bits,
    sketch_of,
    squeezed,
)
from bilens.findings.tensor_parts import match_parts
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensor_names import kind_of, paired

TRIES = 3  # candidates that are compared number by number, by falling estimates
NUMBER = re.compile(r"\d+")


def match_tensors(model: Store, baseline: Store, progress: Progress = silent) -> Matching:
    """Pair the tensors of two files, one pair in memory at a time.

    Cost: each named pair is read once. Of the others 96 operations a number and order of axes, and
    a comparison of each with its likeliest counterparts.
    """
    stores = model, baseline
    model, baseline = (
        {n: replace(t, name=n) for n, t in one.items() if t.readable} for one in stores
    )
    found, named = Matching([], dict(model), dict(baseline)), paired(model, baseline)
    for done, (name, other) in enumerate(named.items()):
        progress("matching", done, len(named))
        new, old = model[name], baseline[other]
        if new.shape == old.shape:
            pair = pair_of(new, old, "name")
            if pair.same or agree(numbers_in(new), numbers_in(old)):
                found.pairs.append(pair)
                del found.model[name], found.baseline[other]
    match_contents(found, named)
    for name, other in named.items():  # what no number tells better is what its name says
        new, old = model[name], baseline[other]
        if name in found.model and other in found.baseline and new.shape == old.shape:
            found.add(new, old, "name", range(len(squeezed(new.shape))))
    match_parts(found)
    match_copies(found)
    set_aside(found, stores)
    mark_moved(found, named)
    places = [{name: at for at, name in enumerate(store)} for store in (model, baseline)]
    order = [
        [at.get(one.name.partition("[")[0], 0) for one, at in zip(both, places, strict=True)]
        for both in ((pair.model, pair.baseline) for pair in found.pairs)
    ]
    ranked = sorted(range(len(order)), key=lambda k: order[k])
    found.pairs = [found.pairs[k] for k in ranked]
    theirs = [order[k][1] for k in ranked]
    found.reordered = theirs != sorted(theirs)
    return found


def set_aside(found: Matching, stores: tuple[Store, Store]) -> None:
    """Count what was not read, and what is left of the other file, which may be the same."""
    counts = [sum(not one.readable for one in store.values()) for store in stores]
    lacking = [count > 0 or not store for count, store in zip(counts, stores, strict=True)]
    for side, left in enumerate((found.model, found.baseline)):
        if lacking[1 - side]:
            counts[side] += len(left)
            left.clear()
    found.unread = counts[0], counts[1]


def mark_moved(found: Matching, named: Mapping[str, str]) -> None:
    """Mark pairs of which one stands at another place in its file, which is another function.

    Those are tensors whose names differ in their numbers alone, of blocks or experts, in another
    order; and a square matrix that is transposed, unless all others have to be, too.
    """
    turned = any(pair.how == "transposed" and is_oblong(pair.model) for pair in found.pairs)
    groups = dict[tuple[str, ...], list[tuple[list[list[int]], int]]]()
    for at, pair in enumerate(found.pairs):
        names = pair.model.name, pair.baseline.name
        if pair.how == "transposed" and names[0] in named and not turned:
            found.pairs[at] = replace(pair, moved=True)
        if pair.how != "name" and not pair.constant and "::" not in "".join(names):
            numbers = [[*map(int, NUMBER.findall(name))] for name in names]
            groups.setdefault(tuple(NUMBER.sub("*", name) for name in names), []).append(
                (numbers, at)
            )
    for members in groups.values():
        mine, theirs = (sorted(members, key=lambda one: one[0][side]) for side in (0, 1))
        for one, other in zip(mine, theirs, strict=True):
            if one != other:
                found.pairs[one[1]] = replace(found.pairs[one[1]], moved=True)


def is_oblong(tensor: StoredTensor) -> bool:
    return len({*squeezed(tensor.shape)}) > 1


# ---- by content


def match_contents(found: Matching, named: Mapping[str, str]) -> None:
    """Pair what is left by the numbers in it, whatever the order of axes."""
    taken = {*named.values()}
    buckets = dict[tuple[int, ...], tuple[list[StoredTensor], list[StoredTensor]]]()
    for side, left in enumerate((found.model, found.baseline)):
        for one in left.values():
            sides = tuple(sorted(squeezed(one.shape)))
            buckets.setdefault(sides, ([], []))[side].append(one)
    for news, olds in buckets.values():
        if not (news and olds):
            continue
        tries = dict[str, int]()
        for new, old, order in candidates(news, olds):
            if new.name not in found.model or old.name not in found.baseline:
                continue
            own = named.get(new.name) == old.name
            exact = not own and (new.name in named or old.name in taken)
            if tries.setdefault(new.name, 0) >= TRIES or (own and [*order] == [*range(len(order))]):
                continue
            tries[new.name] += 1
            if agree(numbers_in(new), numbers_in(in_shape_of(new, old, order)), exact=exact):
                plain = [*order] == [*range(len(order))]
                how: How = "content" if plain else "transposed"
                found.add(new, old, how, order, moved=exact)


def candidates(
    news: Sequence[StoredTensor], olds: Sequence[StoredTensor]
) -> list[tuple[StoredTensor, StoredTensor, tuple[int, ...]]]:
    """Return tensors that may be the same, the likeliest first; constants in their order."""
    mine = [sketches_of(one, [squeezed(one.shape)]) for one in news]
    shapes = [*dict.fromkeys(squeezed(one.shape) for one in news)]
    theirs = [sketches_of(one, shapes) for one in olds]
    ranked = list[tuple[float, int, int, tuple[int, ...]]]()
    for i, new in enumerate(news):
        sides = squeezed(new.shape)
        wanted = mine[i][tuple(range(len(sides)))]
        for j, old in enumerate(olds):
            for order in orders_between(squeezed(old.shape), sides):
                other = theirs[j][order]
                if wanted.numel() == other.numel():
                    alike = float(wanted @ other) if len(wanted) > 1 else near(wanted, other)
                    if alike >= HALF / 2:
                        ranked.append((-round(alike, 4), i, j, order))
    return [(news[i], olds[j], order) for _, i, j, order in sorted(ranked)]


def near(one: Tensor, other: Tensor) -> float:
    """Return 1 where two constants are equal but for rounding, or else 0."""
    return float(torch.isclose(one, other, rtol=torch.finfo(torch.bfloat16).eps, atol=0).all())


def sketches_of(
    one: StoredTensor, shapes: Sequence[tuple[int, ...]]
) -> dict[tuple[int, ...], Tensor]:
    """Return order of axes → sketch, for each order in which a tensor has one of some shapes."""
    orders = [order for shape in shapes for order in orders_between(squeezed(one.shape), shape)]
    values = numbers_in(one).float().reshape(squeezed(one.shape))
    return {order: sketch_of(values, order) for order in orders}


def match_copies(found: Matching) -> None:
    """Pair a head that is stored beside the embedding that it is equal to, where that is tied."""
    for side, left in (("model", found.model), ("baseline", found.baseline)):
        for one in [*left.values()]:
            for pair in [*found.pairs]:
                own: StoredTensor = getattr(pair, side)
                ends = {kind_of(name, ()) for name in (one.name, own.name)} & {"head", "embedding"}
                alike = one.shape == own.shape and ends and not pair.constant
                if alike and same_bits(numbers_in(one), numbers_in(own)):
                    new, old = (one, pair.baseline) if side == "model" else (pair.model, one)
                    found.pairs.append(replace(pair, model=new, baseline=old, how="tied"))
                    del left[one.name]
                    break
