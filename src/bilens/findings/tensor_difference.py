"""Compares every tensor of a model with the baseline's, readable as a layer or not."""

import re
from collections.abc import Callable, Mapping, Sequence
from math import prod

import torch
from msgspec.structs import replace
from torch import Tensor

from bilens.algebra.matrix_change import (
    MatrixChange,
    is_low,
    matrix_change,
    precision,
    spacing,
)
from bilens.base import Progress, silent
from bilens.base.errors import NonFiniteError
from bilens.findings.difference_headline import headline_of
from bilens.findings.tensor_likeness import (
    ROUNDED,
    Matching,
    TensorPair,
    are_elsewhere,
    correlation,
    is_beyond_chance,
    numbers_in,
    rounded_to,
)
from bilens.findings.tensor_matching import call_moved_renamed, match_tensors
from bilens.findings.tensor_parts import match_folded
from bilens.io.contents import Contents
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensor_names import LAYER, is_stack, kind_of, paired
from bilens.records.tensor_changes import FileChange, GraphChange, TensorChange, WholeDifference

NAMED = 5  # blocks of codes that are named
# spacings that a sum of an adapter is away from one that is stored: each of both, and what was
# added, are half of one away or less
FEW = 4
EPSILON = torch.finfo(torch.float32).eps  # of all numbers of such a sum together
MANY = 16  # different numbers in a tensor, of which some would change if all were rounded

BLOCK = 16  # numbers with one scale, in all formats of codes, or more
PLAIN = ("", "float32", "float16", "bfloat16", "F64")  # what a format calls numbers without codes
BITS = re.compile(r"I?Q([2-8])_([01])?")  # of a code of a ggml type; 0 and 1: a scale for 32
AT_ONCE = 65_536  # blocks
# of the largest number of a block: what scale and minimum in float16, each half a spacing away,
# move two levels apart
SLACK = 3 * torch.finfo(torch.float16).eps

# Of Q8_0: numbers with one scale, and how many scales the largest of them is away from zero.
SCALED, LARGEST = 32, 127
TINY = 1e-30  # in the place of a scale of 0


def compare_tensors(
    model: Store,
    baseline: Store,
    files: tuple[FileChange, ...] | None = None,
    *,
    unseen: tuple[str, ...] = (),
    same_file: bool = False,
    graph: Callable[[Sequence[TensorPair]], GraphChange | None] | None = None,
    headers: Mapping[str, Contents | None] | None = None,
    progress: Progress = silent,
) -> WholeDifference:
    """Compare all tensors with a baseline's, one pair in memory at a time.

    `files` are those beside the weights, `unseen` folders there; `same_file` says that these have
    the same SHA-256; `graph` compares operations, which read tensors that are matched in pairs;
    `headers` are those of "model" and "baseline".
    """
    found = match_tensors(model, baseline, progress)
    changes = match_folded(found, {n: one for n, one in (headers or {}).items() if one})
    changed = None if graph is None else graph(found.pairs)
    renamed = call_moved_renamed(found.pairs)
    if graph is not None and renamed and graph(renamed) == GraphChange((), ()):
        found.pairs, changed = renamed, GraphChange((), ())
    for done, pair in enumerate(found.pairs):
        progress("tensors", done, len(found.pairs))
        if pair.how != "folded" and (not pair.same or pair.moved):
            changes.append(compare_pair(pair))
    changes = [one if is_rounded(one, found) else replace(one, state="changed") for one in changes]
    names = paired(found.model, found.baseline)
    whole = WholeDifference(
        tensors=len(found.pairs),
        changed=tuple(changes),
        model_alone=tuple(name for name in found.model if name not in names),
        baseline_alone=tuple(name for name in found.baseline if name not in names.values()),
        other_shape=tuple(names),
        files=files,
        unseen=unseen,
    )
    head = headline_of(whole, found, same_file=same_file, graph=changed)
    return replace(whole, headline=head)


def compare_pair(pair: TensorPair) -> TensorChange:
    """Compare two tensors that are not the same, bit for bit, or not under the same name."""
    old, new = pair.baseline, pair.model
    kinds = [kind_of(one.name, new.shape) for one in (new, old)]
    said = [LAYER.search(one.name) for one in (new, old)]
    kind, number = kinds[kinds[0] == "other"], next(filter(None, said), None)
    layer = int(number[1]) if number else None
    found = TensorChange(new.name, kind, layer, new.storage, old.storage, "not_finite")
    whole = matrices(new.name, torch.empty(old.shape, device="meta"))
    full = min(whole[0].shape) if len(old.shape) > 1 else 0
    found = replace(found, baseline_name=old.name, entries=prod(new.shape), full=full)
    try:
        before, after = old.read_tensor(), new.read_tensor()
    except NonFiniteError:
        return found
    rounded = rounded_to(after, before)
    widened = "" if rounded else rounded_to(before, after)
    before, after = computable(before), computable(after)
    delta = (
        after - before if before.dtype == torch.int64 == after.dtype else after.double() - before
    )
    size, moved = (float(torch.linalg.vector_norm(part.double())) for part in (before, delta))
    found = replace(
        found,
        change=moved / size if size > 0 else 0.0 if moved == 0 else None,
        rounded_to=rounded,
        baseline_rounded_to=widened,
        size=size,
        correlation=correlation(before, after),
    )
    coded, summed = new.quantised_as != old.quantised_as, new.added_to or old.added_to
    if rounded or widened:
        found = replace(found, state="rounding", rank=0 if found.full else None)
    elif coded and (off := blocks_off(before, after, new, old)) == ():
        found = replace(found, state="quantised")
    elif coded and off is not None:
        found = replace(found, state="codes", blocks_off=len(off), places=off[:NAMED])
    elif found.change is not None and found.change <= (EPSILON if summed else 0):
        found = replace(found, state="rounding", rank=0 if found.full else None)
    elif same_numbers(before, after):
        found = replace(found, state="reordered")
    else:
        both, most = (before.double(), after.double()), most_by_rounding(new, old, before, after)
        found = with_rank(found, *both, delta.double(), most, new.rescaled)
    alike = found.state in ("rounding", "quantised") or found.change == 0
    return replace(found, state="moved", rank=None) if pair.moved and alike else found


def computable(tensor: Tensor) -> Tensor:
    """Return numbers in a type that is computed in: whole ones and truth values as int64."""
    if not tensor.is_floating_point():
        return tensor.long()
    return tensor.double() if tensor.element_size() == 1 else tensor


def is_rounded(change: TensorChange, found: Matching) -> bool:
    """Tell whether a file may be the other one rounded, if that is what a change says.

    Where that stores it in another type, all of the file has to lie on the numbers of the narrower
    one, and none but simple numbers may be the same.
    """
    kind = change.rounded_to or change.baseline_rounded_to
    stored = change.dtype if change.rounded_to else change.baseline_dtype
    if change.state != "rounding" or not kind or change.change == 0 or kind == stored:
        return True
    count = 0
    for pair in found.pairs:
        side = pair.model if change.rounded_to else pair.baseline
        if side.storage == stored:
            one = numbers_in(side)
            if not torch.equal(one, one.to(getattr(torch, kind)).to(one.dtype)):
                return False
            many = len(torch.unique(one))
            if pair.same and many > MANY:
                return False  # which rounding would have changed
            count += many
    return count > MANY


def most_by_rounding(new: StoredTensor, old: StoredTensor, before: Tensor, after: Tensor) -> Tensor:
    """Return how far apart rounding leaves two numbers: half a spacing of each type they have.

    0 where both have one type, and of whole numbers and codes, which nothing rounds.
    """
    size = torch.minimum(before.abs(), after.abs()).double()
    if new.added_to or old.added_to:  # what cancels in a sum is as large as the others
        size = torch.maximum(before.abs(), after.abs()).double()
        size = size.clamp(min=float(size.median()))
        return FEW * torch.maximum(*(spacing(size, precision(one)) for one in (before, after)))
    kinds = [getattr(torch, one.storage, None) for one in (new, old)]
    known = [kind for kind in kinds if kind in (*ROUNDED, torch.float64)]
    if len({*known}) < 2:
        return torch.zeros_like(size)
    return (spacing(size, known[0]) + spacing(size, known[1])) / 2


def with_rank(
    found: TensorChange,
    before: Tensor,
    after: Tensor,
    delta: Tensor,
    most: Tensor,
    rescaled: bool,
) -> TensorChange:
    """Return a change with its rank beside what rounding and noise would leave, and its state."""
    full = found.full
    both = (matrices(found.name, part) for part in (before, after, delta, most))
    parts = [change_of(*part) for part in zip(*both, strict=True)]
    ranks = [part.rank for part in parts if part.rank is not None]
    rank = max(ranks) if len(ranks) == len(parts) else None
    state = "changed"
    if rank == 0:
        state = "rounding"
    elif rank is not None and is_low(rank, full) and rank < full - 1:  # one row less than all is
        state = "low_rank"  # what a change of the rows of a softmax leaves, whose sum is free
    elif full and rescaled:
        state = "rescaled"
    elif full and (rank is None or rank == full) and all(part.is_noise for part in parts):
        state = "noise"
    alike = is_beyond_chance(found.correlation, found.entries)
    if before.ndim == 2 and rank != 0 and not alike and are_elsewhere(before, after):
        state = "permuted"
    top = max(part.top_share for part in parts)
    return replace(found, state=state, rank=rank if full else None, top_share=top)


def change_of(old: Tensor, new: Tensor, delta: Tensor, most: Tensor) -> MatrixChange:
    """Return the change of a matrix; where its norm is that of rounding, of entries beyond it."""
    found = matrix_change(old, new)
    if found.rank == 0:
        beyond = torch.where(delta.abs() > most, delta, 0)
        beyond = beyond / beyond.abs().max().clamp(min=torch.finfo(beyond.dtype).tiny)
        found = matrix_change(torch.zeros_like(beyond), beyond)
    return found


def same_numbers(one: Tensor, other: Tensor) -> bool:
    """Tell whether two tensors hold the same numbers, each as often, in whatever order."""
    sums = [float(part.double().sum()) for part in (one, other)]
    near = abs(sums[0] - sums[1]) <= 1e-9 * float(one.double().abs().sum())
    return near and torch.equal(one.flatten().sort().values, other.flatten().sort().values)


def matrices(name: str, tensor: Tensor) -> list[Tensor]:
    """Return a tensor as matrices: a stack one by one, a kernel with its outputs as rows."""
    if is_stack(name, tuple(tensor.shape)):
        return [*tensor]
    return [tensor.flatten(1) if tensor.ndim > 1 else tensor.reshape(1, -1)]


# ---- codes


def blocks_off(
    one: Tensor, other: Tensor, new: StoredTensor, old: StoredTensor
) -> tuple[str, ...] | None:
    """Return the blocks of codes that say other numbers than the nearest; None where most do.

    Either tensor may be the one in codes, as stored in `new` (of the other one) and `old`.
    """
    for exact, levels, stored in ((one, other, new), (other, one, old)):
        codes, off = stored.quantised_as, None
        if codes == "Q8_0":
            off = eight_bit_blocks_off(exact, levels)
        elif stored.grid is not None:
            off = grid_blocks_off(exact, levels, stored.grid(stored.block), codes)
        if off is not None:
            if int(off.sum()) * 2 <= len(off):
                starts = (
                    divmod(at * SCALED, levels.shape[-1]) for at in off.nonzero()[:, 0].tolist()
                )
                return tuple(f"[{row}, {start}:{start + SCALED}]" for row, start in starts)
        elif is_nearest(exact, levels, codes):
            return ()
    return None


def eight_bit_blocks_off(exact: Tensor, levels: Tensor) -> Tensor | None:
    """Tell of each block of Q8_0 whether a number is further from its code than rounding goes.

    None where levels are no whole numbers of scales, as in a block of another size.

    Math: the scale s of a block is its largest number over 127, rounded to float16, so that it is
        half a spacing away, e = spacing(s) / 2. A level q s is |q| e away from what was meant, and
        that (s + e) / 2 from the number, except for the largest number, where q is 127. The numbers
        may have been rounded to float16 or bfloat16 before.
    """
    if levels.ndim < 2 or levels.shape[-1] % SCALED:
        return None
    other = levels.reshape(-1, SCALED).double()
    scale = other.abs().amax(1, keepdim=True) / LARGEST
    count = (other / scale.clamp(min=TINY)).abs()
    if bool(((count - count.round()).abs() > 1e-3).any(1).double().mean() > 0.5):
        return None
    half = spacing(scale, torch.float16) / 2
    found = list[Tensor]()
    for dtype in (exact.dtype, torch.float16, torch.bfloat16):
        one = exact.to(dtype).reshape(-1, SCALED).double()
        # a millionth is what float32 adds on the way
        away, largest = (one - other).abs(), one.abs() == one.abs().amax(1, keepdim=True)
        most = count * half + torch.where(largest, 0, (scale + half) / 2)
        most = torch.where(scale > 0, most, LARGEST * half)
        found.append((away > most * (1 + 1e-6) + 1e-6 * scale * count).any(1))
    return min(found, key=lambda off: int(off.sum()))


def grid_blocks_off(exact: Tensor, levels: Tensor, grid: Tensor, codes: str) -> Tensor | None:
    """Tell of each block whether a number is further from its level than from another of the grid.

    None where the levels are none of that grid, as of a tensor whose axes are turned.

    Math: with the lowest level l and the step s, each rounded to float16 by as much as e(l), e(s),
        a level l + q s is |q| e(s) + e(l) away from what was meant, and that (|s| + e(s)) / 2 from
        the number; of types without a stored l, q counts from zero, and the largest number of the
        other sign than s may be a step beyond the last level.
    """
    if grid.shape[:-1].numel() * SCALED != levels.numel():
        return None
    low, step = grid.double().reshape(-1, 2).T[:, :, None]
    other, last = levels.reshape(-1, SCALED).double(), 2 ** int(codes[1]) - 1
    code = torch.where(step == 0, 0, (other - low) / torch.where(step == 0, 1, step)).round()
    if bool((((low + code * step) - other).abs() > 1e-6 * (low.abs() + step.abs() * last)).any()):
        return None
    is_stored, half = codes.endswith("1"), spacing(step.abs(), torch.float16) / 2
    count = code if is_stored else (code - (last + 1) / 2).abs()
    count = torch.where(step == 0, last, count)
    most = (step.abs() + half) / 2 + count * half + 1e-6 * (low.abs() + step.abs() * last)
    most = most + (spacing(low.abs(), torch.float16) / 2 if is_stored else 0)
    found = list[Tensor]()
    for dtype in (exact.dtype, torch.float16, torch.bfloat16):
        away = (exact.to(dtype).reshape(-1, SCALED).double() - other) * torch.where(step < 0, -1, 1)
        beyond = (code == last) & (away > 0) & (not is_stored)
        found.append((away.abs() > most + beyond * step.abs() / 2).any(1))
    return min(found, key=lambda off: int(off.sum()))


def is_nearest(exact: Tensor, levels: Tensor, codes: str) -> bool:
    """Tell whether numbers were each rounded to the nearest that codes can say, in every block.

    Blocks have one scale: of sixteen along rows, as no format has smaller ones, or along columns.
    No number may be more than one step of a known type away, nor, where all levels of a block are
    equal, one that is seen.
    """
    if codes in PLAIN:
        return False
    bits = BITS.match(codes)
    for turn in (False, True):
        both = [part.flatten(1).T if turn and part.ndim > 1 else part for part in (exact, levels)]
        if both[0].shape[-1] % BLOCK == 0:
            one, other = (part.reshape(-1, BLOCK) for part in both)
            largest = pooled(-other.abs().amax(1), 2).neg()
            slack, away = SLACK * largest, (one - other).abs().amax(1)
            if bits:
                scale = largest if bits[2] else largest.max()
                if bool((away > scale / (2 ** (int(bits[1]) - 1) - 1) + slack).any()):
                    continue
            blocks = zip(*(torch.split(part, AT_ONCE) for part in (one, other, slack)), strict=True)
            if all(are_nearest(*block) for block in blocks):
                step = steps_of(other, both[0].shape[-1] // BLOCK)
                if bool(((away <= step + slack) | (other != other[:, :1]).any(1)).all()):
                    return True
    return False


def are_nearest(exact: Tensor, levels: Tensor, slack: Tensor) -> bool:
    """Tell whether each number of each block is nearer to its own level than to the others."""
    away = (exact[:, :, None] - levels[:, None, :]).abs()
    return bool((away.diagonal(dim1=1, dim2=2) <= away.amin(2) + slack[:, None]).all())


def steps_of(blocks: Tensor, in_line: int) -> Tensor:
    """Return the least distance of two levels of each block; where all are equal, of those around.

    Those are the block beside it, else the line, else the tensor; 0 where all levels are equal.
    """
    apart = blocks.sort(1).values.diff(dim=1)
    found = torch.where(apart > 0, apart, torch.inf).amin(1)
    for count in (2, in_line, len(blocks)):
        found = torch.where(found.isinf(), pooled(found, count), found)
    return torch.where(found.isinf(), 0, found)


def pooled(values: Tensor, count: int) -> Tensor:
    """Return of each value the least one of so many side by side, among which it is."""
    if len(values) % count:
        return values
    return values.reshape(-1, count).amin(1).repeat_interleave(count)
