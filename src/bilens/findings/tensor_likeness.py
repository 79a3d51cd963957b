"""When two stored tensors are the same one: correlations beside chance, orders of axes, sketches.

A match without names is one that the numbers carry: the correlation of all entries is at least a
half, and six deviations (of Fisher's z) above that of independent tensors; too few numbers for
that, and constants, have to be equal.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cache, partial
from itertools import permutations
from typing import Literal, TypeAlias

import torch
from torch import Tensor

from bilens.io.byte_ranges import Block
from bilens.io.stored_mlp import StoredTensor

How: TypeAlias = Literal["name", "content", "transposed", "part", "tied", "folded"]
HALF, DEVIATIONS = 0.5, 6.0
LONG = 65_536  # numbers along an axis that a sketch is of, the first ones
NEARLY, SAMPLED = 0.9, 64  # cosine of rows, and how many are looked for
EQUALLY = 1e-5  # of a cosine in float32
DIRECTIONS = 48  # random ones that a sketch is of: it estimates a correlation to 1 / √48
ROUNDED = (
    torch.float16, torch.bfloat16, torch.float32, torch.float8_e4m3fn, torch.float8_e5m2,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class TensorPair:
    """A tensor, or a part of one, and its counterpart in the same shape."""

    model: StoredTensor
    baseline: StoredTensor
    how: How
    same: bool = False  # bit for bit
    constant: bool = False  # both, and equal, which says nothing of where it comes from
    moved: bool = False  # the name of each is that of another tensor of the other file
    placed: bool = True  # both names say one place, and nothing leaves open which way it stands


@dataclass(eq=False)
class Matching:
    """Pairs, each tensor or part in one of them, and what is left of both files."""

    pairs: list[TensorPair] = field(default_factory=list)
    model: dict[str, StoredTensor] = field(default_factory=dict)
    baseline: dict[str, StoredTensor] = field(default_factory=dict)
    reordered: bool = False  # whether the files hold them in another order
    # names of both, whose numbers or counterparts were not read
    unread: tuple[tuple[str, ...], tuple[str, ...]] = ((), ())

    def add(
        self,
        new: StoredTensor,
        old: StoredTensor,
        how: How,
        order: Sequence[int],
        *,
        moved: bool = False,
    ) -> None:
        """Pair what is left of both files; `order` turns the axes of the baseline's."""
        del self.model[new.name], self.baseline[old.name]
        self.pairs.append(pair_of(new, in_shape_of(new, old, order), how, moved=moved))


# ---- what carries a match


def numbers_in(tensor: StoredTensor) -> Tensor:
    """Return the numbers of a tensor as they are stored, NaN and infinity too."""
    return tensor.fetch(tensor.block).reshape(tensor.shape)


def in_reals(tensor: StoredTensor) -> StoredTensor:
    """Return a tensor; complex numbers as pairs of real ones, along one axis more."""
    if not tensor.dtype.is_complex:
        return tensor
    fetch: Callable[[Block], Tensor] = lambda at: torch.view_as_real(tensor.fetch(()))[at]  # noqa: E731
    shape, dtype = (*tensor.shape, 2), tensor.dtype.to_real()
    return replace(tensor, shape=shape, dtype=dtype, fetch=fetch, quantised_as=tensor.storage)


def same_bits(one: Tensor, other: Tensor) -> bool:
    bits = (part.contiguous().reshape(-1).view(torch.uint8) for part in (one, other))
    return one.dtype == other.dtype and torch.equal(*bits)


def rounded_to(one: Tensor, other: Tensor) -> str:
    """Return the type in which numbers are those of the other, each rounded; empty for none."""
    kinds = [*ROUNDED] if one.is_floating_point() and other.is_floating_point() else []
    kinds.sort(key=lambda kind: kind != one.dtype)  # what it is stored in, before what it might be
    for part in (slice(999), slice(None)):
        new, old = one.flatten()[part].double(), other.flatten()[part]
        kinds = [kind for kind in kinds if torch.equal(new, old.to(kind).double())]
    return str(kinds[0]).removeprefix("torch.") if kinds else ""


def correlation(one: Tensor, other: Tensor) -> float | None:
    """Return the cosine of the numbers of two tensors less their means; None for constants."""
    first, second = (part.double() - part.double().mean() for part in (one, other))
    sizes = float(first.norm() * second.norm())
    return float((first * second).sum()) / sizes if sizes > 0 else None


def is_beyond_chance(alike: float | None, count: int, least: float = HALF) -> bool:
    """Tell whether a correlation, at least so large, is none that independent numbers have."""
    if alike is None or alike < least:
        return False
    z = math.atanh(min(abs(alike), 1 - 1e-12)) * math.sqrt(max(count - 3, 0))
    return z >= DEVIATIONS


def are_elsewhere(one: Tensor, other: Tensor) -> bool:
    """Tell whether most rows of a matrix, or columns, are those of another one in another order.

    Each is held to its nearest one by its direction, of which 81 % of the squares have to agree.
    """
    for first, second in ((one, other), (one.T, other.T)):
        step = max(len(first) // SAMPLED, 1)
        first = first[::step]
        rows = [torch.nn.functional.normalize(part.float(), dim=1) for part in (first, second)]
        alike = (rows[0] @ rows[1].T).amax(1)
        own = (rows[0] * rows[1][::step]).sum(1)  # as alike where all rows have one direction
        elsewhere = own < alike - EQUALLY
        nearest = float(torch.where(elsewhere, alike, 0).median())
        if nearest >= NEARLY and is_beyond_chance(nearest, first.shape[1]):
            return True
    return False


def are_scaled(pair: TensorPair) -> bool:
    """Tell whether most rows, along the first or last axis, differ by factors alone."""
    both = [numbers_in(one).float() for one in (pair.model, pair.baseline)]
    for axis in (0, -1):
        first, second = (one.movedim(axis, 0).flatten(1) for one in both)
        alike = float(torch.nn.functional.cosine_similarity(first, second).abs().median())
        if alike >= NEARLY and is_beyond_chance(alike, first.shape[1]):
            return True
    return False


def agree(one: Tensor, other: Tensor, *, exact: bool = False) -> bool:
    """Tell whether the numbers of two tensors of one shape say that they are the same one.

    `exact`: by equal numbers alone, but for the type that one of both is rounded to, no constants.
    """
    if torch.equal(one.double(), other.double()) or rounded_to(one, other):
        return not exact or not is_constant(one)
    return not exact and is_beyond_chance(correlation(one, other), one.numel())


def pair_of(new: StoredTensor, old: StoredTensor, how: How, *, moved: bool = False) -> TensorPair:
    one, other = numbers_in(new), numbers_in(old)
    constant = is_constant(one) and torch.equal(one.double(), other.double())
    same = new.storage == old.storage and same_bits(one, other)
    return TensorPair(new, old, how, same, constant, moved)


def is_constant(values: Tensor) -> bool:
    parts = (values.flatten()[part].double() for part in (slice(999), slice(None)))
    return all(bool((part == part[:1]).all()) for part in parts)


# ---- axes in another order


def squeezed(shape: Sequence[int]) -> tuple[int, ...]:
    return tuple(side for side in shape if side != 1)


def is_unturned(order: Sequence[int]) -> bool:
    return [*order] == [*range(len(order))]


def in_shape_of(new: StoredTensor, old: StoredTensor, order: Sequence[int]) -> StoredTensor:
    """Return a tensor in the shape of another one, its longer axes in another order."""
    if new.shape == old.shape and is_unturned(order):
        return old
    fetch = partial(turn_axes, old, tuple(order), new.shape)
    return replace(old, shape=new.shape, block=(), fetch=fetch, locate=lambda _: ())


def turn_axes(
    old: StoredTensor, order: tuple[int, ...], shape: tuple[int, ...], at: Block
) -> Tensor:
    return numbers_in(old).reshape(squeezed(old.shape)).permute(order).reshape(shape)[at]


def orders_between(shape: tuple[int, ...], wanted: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
    """Yield the orders of axes in which a shape is the one that is wanted, as it is first."""
    if sorted(shape) == sorted(wanted) and len(shape) <= 4:
        yield from (
            order
            for order in permutations(range(len(shape)))
            if tuple(shape[axis] for axis in order) == wanted
        )


@cache
def random_directions(place: int, size: int) -> Tensor:
    draw = torch.Generator().manual_seed(1_000_003 * place + size)
    return torch.randn(DIRECTIONS, size, generator=draw)


def sketch_of(values: Tensor, order: Sequence[int]) -> Tensor:
    """Return ⟨W, u ⊗ v ⊗ …⟩ for random u, v, …, at length 1: the same ones for each shape.

    The cosine of two sketches estimates the correlation of two tensors. Of a constant its value.
    """
    values = values[(slice(LONG),) * values.ndim]
    found = (values - values.mean()).permute(tuple(order))
    if not found.any() or not found.isfinite().all():
        return values.flatten()[:1]
    *sides, last = found.shape
    found = torch.matmul(found, random_directions(len(sides), last).T)
    for place in reversed(range(len(sides))):
        found = (found * random_directions(place, sides[place]).T).sum(-2)
    return torch.nn.functional.normalize(found, dim=0)
