"""Whether codes say the numbers of another tensor, each rounded to the nearest they can say."""

import re

import torch
from torch import Tensor

from bilens.algebra.matrix_change import spacing

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


def blocks_off(one: Tensor, other: Tensor, new: str, old: str) -> tuple[str, ...] | None:
    """Return the blocks of codes that say other numbers than the nearest; None where most do.

    Either tensor may be the one in codes, of the types `new` (of the other one) and `old`.
    """
    for exact, levels, codes in ((one, other, new), (other, one, old)):
        if codes == "Q8_0" and (off := eight_bit_blocks_off(exact, levels)) is not None:
            if int(off.sum()) * 2 <= len(off):
                return tuple(place_of(int(at), levels) for at in off.nonzero()[:, 0])
        elif is_nearest(exact, levels, codes):
            return ()
    return None


def place_of(block: int, levels: Tensor) -> str:
    row, start = divmod(block * SCALED, levels.shape[-1])
    return f"[{row}, {start}:{start + SCALED}]"


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
