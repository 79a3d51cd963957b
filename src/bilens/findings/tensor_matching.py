"""Which tensor of a model is which one of its baseline: by name, else by the numbers in it.

Equal constants are matched in their order, which is as good as any other. Where both files have a
name, another tensor takes its place for equal numbers alone.
"""

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import permutations
from typing import TypeAlias

import torch
from torch import Tensor

from bilens.base import Progress, silent
from bilens.findings.tensor_likeness import (
    HALF,
    How,
    Matching,
    TensorPair,
    agree,
    in_reals,
    in_shape_of,
    is_unturned,
    numbers_in,
    orders_between,
    pair_of,
    same_bits,
    sketch_of,
    squeezed,
)
from bilens.findings.tensor_parts import match_parts
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensor_names import LAYER, canonical, kind_of, paired

TRIES = 3  # candidates that are compared number by number, by falling estimates
MOST = 5  # numbers of names that are tried in every order
NUMBER = re.compile(r"\d+")
ROLES, IN_ORDER = ("q", "k", "v", "o", "gate", "up", "down"), "qkv"  # of rows of a fused matrix
MARKS = ("type", "pos", "emb", "att", "output")  # words that tell embeddings and norms apart
Numbered: TypeAlias = tuple[list[list[int]], int]  # the numbers in both names of a pair; which


def match_tensors(model: Store, baseline: Store, progress: Progress = silent) -> Matching:
    """Pair the tensors of two files, one pair in memory at a time.

    Cost: each named pair is read once. Of the others 96 operations a number and order of axes, and
    a comparison of each with its likeliest counterparts.
    """
    stores = comparable(model, baseline), comparable(baseline, model)
    model, baseline = (
        {n: in_reals(replace(t, name=n)) for n, t in one.items() if t.readable} for one in stores
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
        if name in found.model and other in found.baseline:
            axes = tuple(range(len(squeezed(new.shape))))
            if new.shape == old.shape or has_same_numbers(new, old, axes):  # a 1 written as [1]
                found.add(new, old, "name", axes)
    match_contents(found, named, constants=True)  # in whose own places others are by now
    match_siblings(found)
    match_parts(found)
    match_copies(found)
    set_aside(found, stores)
    mark_moved(found, named, baseline)
    mark_places(found, named, model, baseline)
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


def comparable(store: Store, other: Store) -> Store:
    """Return tensors, those of codes without their scales read only where the other has such."""
    kinds = {one.storage for one in other.values()}

    def is_known(one: StoredTensor) -> bool:
        return one.dtype.is_floating_point or not one.quantised_as or one.storage in kinds

    return {n: replace(t, readable=t.readable and is_known(t)) for n, t in store.items()}


def set_aside(found: Matching, stores: tuple[Store, Store]) -> None:
    """Name what was not read, and what is left of the other file, which may be the same.

    So each tensor of both is in a pair, left alone, or named as not compared.
    """
    unread = [[name for name, one in store.items() if not one.readable] for store in stores]
    lacking = [bool(names) or not store for names, store in zip(unread, stores, strict=True)]
    for side, left in enumerate((found.model, found.baseline)):
        if lacking[1 - side]:
            unread[side] += left
            left.clear()
    found.unread = tuple(unread[0]), tuple(unread[1])
    paired = zip(*((pair.model.name, pair.baseline.name) for pair in found.pairs), strict=True)
    both = [*paired] or [(), ()]
    for side, left in enumerate((found.model, found.baseline)):
        told = {*both[side], *left, *found.unread[side]}
        told |= {name[: at.start()] for name in told for at in re.finditer(r"\[", name)}  # of parts
        lost = stores[side].keys() - told
        assert not lost, f"neither compared nor named: {sorted(lost)}"


def mark_moved(found: Matching, named: Mapping[str, str], baseline: Store) -> None:
    """Mark pairs of which one stands at another place in its file, which is another function.

    Those are tensors whose names differ in their numbers alone, of blocks or experts, in another
    order; and one that is transposed and keeps its shape, unless others have to be, too. Between
    names of other words those of blocks and of stacks alone tell, as an exporter counts, too.
    """
    turned = any(
        pair.how == "transposed"
        and squeezed(pair.model.shape) != squeezed(baseline[pair.baseline.name].shape)
        for pair in found.pairs
    )
    groups = dict[tuple[str, ...], list[Numbered]]()
    for at, pair in enumerate(found.pairs):
        names = pair.model.name, pair.baseline.name
        if pair.how == "transposed" and names[0] in named and not turned:
            found.pairs[at] = replace(pair, moved=True)
        if pair.how != "name" and not pair.constant and "::" not in "".join(names):
            numbers = [[*map(int, NUMBER.findall(name))] for name in names]
            words = tuple(NUMBER.sub("*", name) for name in names)
            if words[0] == words[1] or all(LAYER.search(one) or one[-1] == "]" for one in names):
                groups.setdefault(words, []).append((numbers, at))
    for at in in_other_roles(found.pairs):
        found.pairs[at] = replace(found.pairs[at], moved=True)
    for (name, other), members in groups.items():
        for at in out_of_order(members, same_words=name == other):
            found.pairs[at] = replace(found.pairs[at], moved=True)


def call_moved_renamed(pairs: Sequence[TensorPair]) -> list[TensorPair]:
    """Return pairs as if tensors with the names of others were renamed; none without such ones."""
    named = [replace(one, moved=False) if one.how == "content" else one for one in pairs]
    return named if any(one.moved and one.how == "content" for one in pairs) else []


def mark_places(found: Matching, named: Mapping[str, str], model: Store, baseline: Store) -> None:
    """Mark the pairs whose names do not say that both stand at one place, whatever is in them.

    Where axes of others stand in another order, nothing says which way one with two sides of one
    length stands, but for one that a graph multiplies with as with all those that it turned.
    """
    counts = [Counter(map(place_of, map(told, one.values()))) for one in (model, baseline)]
    turned = any(pair.how == "transposed" and not pair.moved for pair in found.pairs)
    multiplied = [one for one in found.pairs if one.model.stands_as or one.baseline.stands_as]
    ways = {one.how for one in multiplied if len({*squeezed(one.model.shape)}) > 1}
    sure = {one.model.name for one in multiplied if {one.how} == ways}
    for at, pair in enumerate(found.pairs):
        names, sides = (pair.model.name, pair.baseline.name), squeezed(pair.model.shape)
        places = [place_of(told(one)) for one in (pair.model, pair.baseline)]
        alone = places[0] == places[1] != () and {n[places[0]] for n in counts} == {1}
        known = alone or pair.how == "tied" or named.get(names[0]) == names[1]
        either_way = turned and len({*sides}) < len(sides) and names[0] not in sure
        found.pairs[at] = replace(pair, placed=known and not either_way)


def told(tensor: StoredTensor) -> str:
    """Return the name of a tensor, or the one that its graph tells."""
    return tensor.stands_as or tensor.name


def place_of(name: str) -> tuple[str, ...]:
    """Return block, role and last word of a tensor's name; empty where it says no one role."""
    name = canonical(name)
    block, is_norm = LAYER.search(name), kind_of(name.lower(), ()) == "norm"
    kind = "norm" if is_norm else kind_of(name, ())
    marks = [word for word in MARKS if word in name.lower()]
    if "type" in marks and kind in ("other", "embedding"):
        kind, marks = "embedding", ["type"]
    if kind == "other" or (kind == "norm" and not {"emb", "output"} & {*marks}):
        return ()  # a norm before attention may be called after what stands on either side
    marks = marks if kind in ("norm", "embedding") else []
    return (block[1] if block else "", kind, *marks, name.rpartition(".")[2])


def in_other_roles(pairs: Sequence[TensorPair]) -> Iterator[int]:
    """Yield the pairs whose names say two roles, as q and k, or rows that are not q, k and v.

    A name that says another role than its numbers have there is another convention where its own
    file has no tensor of that role.
    """
    names = [[pair.model.name, pair.baseline.name] for pair in pairs]
    kinds = [[kind_of(one.partition("[")[0], ()) for one in both] for both in names]
    others, rows = {one[0] for one in kinds}, dict[str, list[tuple[int, str, int]]]()
    for at, (pair, both) in enumerate(zip(pairs, kinds, strict=True)):
        if pair.how == "name" or pair.constant:
            continue
        if both[0] != both[1] and {*both} <= {*ROLES} and both[1] in others:
            yield at
        for side, one in enumerate(names[at]):
            whole, _, place = one.partition("[")
            if pair.how == "part" and place and both[1 - side] in IN_ORDER:
                start = int(NUMBER.findall(place)[0])
                rows.setdefault(whole, []).append((start, both[1 - side], at))
    for parts in rows.values():
        said = [kind for _, kind, _ in sorted(parts)]
        yield from (
            at
            for (_, kind, at), wanted in zip(
                sorted(parts), sorted(said, key=IN_ORDER.index), strict=True
            )
            if kind != wanted
        )


def out_of_order(members: Sequence[Numbered], *, same_words: bool) -> list[int]:
    """Return the pairs whose places, by the numbers in both names, are not the same.

    Where the names have other words, their numbers may stand in another order; those that are
    the same in all of them say nothing.
    """
    mine, theirs = ([numbers[side] for numbers, _ in members] for side in (0, 1))
    varied = [
        [at for at, column in enumerate(zip(*names, strict=True)) if len({*column}) > 1]
        for names in (mine, theirs)
    ]
    many = same_words or len(varied[1]) > MOST
    ways = [varied[1]] if many else permutations(varied[1])
    first = sorted(range(len(members)), key=lambda k: [mine[k][at] for at in varied[0]])
    tries = list[list[int]]()
    for way in ways:
        order = sorted(range(len(members)), key=lambda k: [theirs[k][at] for at in way])
        tries.append([members[k][1] for k, other in zip(first, order, strict=True) if k != other])
    return min(tries, key=len)


# ---- by content


def has_same_numbers(new: StoredTensor, old: StoredTensor, order: tuple[int, ...]) -> bool:
    """Tell whether two tensors are the same bit for bit but for axes of length 1."""
    if squeezed(new.shape) != squeezed(old.shape):
        return False
    return same_bits(numbers_in(new), numbers_in(in_shape_of(new, old, order)))


def match_contents(found: Matching, named: Mapping[str, str], *, constants: bool = False) -> None:
    """Pair what is left by the numbers in it, whatever the order of axes; of names of both, too."""
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
            if tries.setdefault(new.name, 0) >= TRIES or (own and is_unturned(order)):
                continue
            tries[new.name] += 1
            both = numbers_in(new), numbers_in(in_shape_of(new, old, order))
            if agree(*both, exact=exact) or (constants and same_bits(*both)):
                how: How = "content" if is_unturned(order) else "transposed"
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
                    alike = float(wanted @ other) if len(wanted) > 1 else are_equal(wanted, other)
                    if alike >= HALF / 2:
                        ranked.append((-round(alike, 4), i, j, order))
    return [(news[i], olds[j], order) for _, i, j, order in sorted(ranked)]


def are_equal(one: Tensor, other: Tensor) -> float:
    """Return 1 where two constants are equal but for rounding, or else 0."""
    return float(torch.isclose(one, other, rtol=torch.finfo(torch.bfloat16).eps, atol=0).all())


def sketches_of(
    one: StoredTensor, shapes: Sequence[tuple[int, ...]]
) -> dict[tuple[int, ...], Tensor]:
    """Return order of axes → sketch, for each order in which a tensor has one of some shapes."""
    orders = [order for shape in shapes for order in orders_between(squeezed(one.shape), shape)]
    values = numbers_in(one).float().reshape(squeezed(one.shape))
    return {order: sketch_of(values, order) for order in orders}


def match_siblings(found: Matching) -> None:
    """Pair what is left under one last word, such as a bias, of layers whose weights are paired."""
    homes = [
        [name.rpartition(".")[0] for name in (pair.model.name, pair.baseline.name)]
        for pair in found.pairs
    ]
    for name, new in [*found.model.items()]:
        home, _, last = name.rpartition(".")
        theirs = {other for own, other in homes if own == home}
        others = [one for one in theirs if {own for own, x in homes if x == one} == {home}]
        old = found.baseline.get(f"{others[0]}.{last}") if len(theirs) == len(others) == 1 else None
        if home and old is not None and old.shape == new.shape:
            found.add(new, old, "name", range(len(squeezed(new.shape))))


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
