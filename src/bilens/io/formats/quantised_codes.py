"""Decodes quantised weights, scheme by scheme: the number that each code stands for.

Each function takes the stored tensors of one weight, checks that they fit together, and returns
what reads the numbers. Products are rounded once, to the dtype that the library itself gives.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens.base.checks import as_integer
from bilens.base.errors import CheckpointError
from bilens.io.byte_ranges import Block
from bilens.io.stored_mlp import StoredTensor
from bilens.io.tensors import DTYPES, check_all_finite

CODES = (torch.float8_e4m3fn, torch.float8_e5m2, torch.int8)
ALL = slice(None)
Weight = tuple[tuple[int, ...], torch.dtype, Callable[[Block], Tensor]]  # shape, dtype, fetch


@dataclass(frozen=True)
class Parts:
    """The stored tensors of one weight, by how their names end, and what is said of all."""

    found: Mapping[str, StoredTensor]
    said: Mapping[str, Any]
    config: Path

    def __getitem__(self, ending: str) -> StoredTensor:
        return self.found[ending]

    def number(self, value: object, key: str, known: tuple[int, ...] = ()) -> int:
        """Return a positive number that the configuration says, one of those that are known."""
        number = as_integer(value)
        if number is None or number < 1 or (known and number not in known):
            wanted = " or ".join(map(str, known)) or "a positive integer"
            raise CheckpointError(
                f"{self.config}: has {key} {value!r} in its quantization_config; expected {wanted}."
            )
        return number


def whole_numbers(tensor: StoredTensor, axes: int) -> None:
    """Refuse packed numbers of another kind or with another number of axes."""
    if len(tensor.shape) != axes or 0 in tensor.shape or tensor.dtype.is_floating_point:
        raise tensor.wrong_shape(f"{axes} axes of packed whole numbers, and got {tensor.dtype}")


def finite(tensor: StoredTensor, block: Block = ()) -> Tensor:
    """Return scales in float32; a broken one is named."""
    found = tensor.fetch(block).float()
    check_all_finite(tensor.path, {tensor.name: found})
    return found


def given_by(scale: StoredTensor) -> torch.dtype:
    """Return the dtype of what is multiplied with a scale."""
    return scale.dtype if scale.dtype in DTYPES.values() else torch.bfloat16


# ---- codes of eight bits, a scale for all, for a row, or for a block of each matrix


def scaled(codes: StoredTensor, scale: StoredTensor, block: tuple[int, int] | None) -> Weight:
    """Return codes times scales; a block is (rows, columns), None one or a row."""
    if codes.dtype not in CODES or len(codes.shape) < 2:
        raise codes.wrong_shape(f"matrices of 8-bit numbers, and got {codes.dtype}")
    *stack, rows, columns = codes.shape
    tall, wide = block or (1, columns)
    grid = (*stack, -(-rows // tall), -(-columns // wide))
    one = prod(scale.shape) == 1 and (block is None or prod(grid) == 1)
    if not one and scale.shape not in (grid, grid if block else grid[:-1]):
        raise scale.wrong_shape(f"{grid}, beside {codes.name!r} of shape {codes.shape}")

    def fetch(block: Block) -> Tensor:
        where = block[len(stack)] if len(block) > len(stack) else ALL
        factors = finite(scale, () if one else block[: len(stack)])
        if not one:
            index = torch.arange(rows)[where] // tall
            factors = factors.reshape(-1, *grid[len(stack) :])[:, index]
            factors = factors.repeat_interleave(wide, -1)[..., :columns]
        return (codes.fetch(block).float() * factors).to(given_by(scale))

    return codes.shape, given_by(scale), fetch


def fp8_in_blocks(parts: Parts) -> Weight:
    size = parts.said.get("weight_block_size", (128, 128))
    if size is not None and not (isinstance(size, list | tuple) and len(size) == 2):
        raise CheckpointError(f"{parts.config}: has weight_block_size {size!r}; expected two.")
    sides = [parts.number(side, "weight_block_size") for side in size or ()]
    return scaled(parts[""], parts["_scale_inv"], (sides[0], sides[1]) if sides else None)


def weights_said(parts: Parts) -> list[Mapping[str, Any]]:
    """Return the settings of compressed-tensors for the weights of each group of modules."""
    groups = parts.said.get("config_groups")
    found = groups.values() if isinstance(groups, dict) else ()
    weights = [one.get("weights") for one in found if isinstance(one, dict)]
    return [one for one in weights if isinstance(one, dict)]


def eight_bits(parts: Parts) -> Weight:
    """Return codes with one scale, one a row or, where a group of modules says so, one a block."""
    codes, scale = parts[".weight"], parts[".weight_scale"]
    for one in weights_said(parts):
        tall, wide = one.get("block_structure") or (1, one.get("group_size") or 0)
        if wide and len(codes.shape) == len(scale.shape) == 2 and scale.shape[1] > 1:
            sides = [parts.number(side, "block_structure or group_size") for side in (tall, wide)]
            return scaled(codes, scale, (sides[0], sides[1]))
    return scaled(codes, scale, None)


def int8_of_bitsandbytes(parts: Parts) -> Weight:
    codes, scale = parts[".weight"], parts[".SCB"]
    layout = parts.found.get(".weight_format")
    if layout is not None and (kind := int(layout.fetch(()).sum())) != 0:
        raise CheckpointError(
            f"{layout.path}: tensor {layout.name!r} is {kind}: the codes lie in the order of a "
            "GPU, as older versions of bitsandbytes saved a model that had run; save it by rows "
            "(0)."
        )
    _, _, fetch = scaled(codes, replace(scale, dtype=torch.float32), None)
    return codes.shape, torch.float32, lambda block: fetch(block) * 7.874015718698502e-3  # 1 / 127


# ---- several codes in one number of 32 bits: (q − z) s with zeros and scales of groups of inputs


def unpacked(words: Tensor, bits: int, axis: int) -> Tensor:
    """Return the codes of numbers of 32 bits along an axis, the lowest bits first."""
    shifts = torch.arange(0, 32, bits).reshape(-1, *[1] * (words.ndim - 1 - axis))
    codes: Tensor = (words.unsqueeze(axis + 1) >> shifts) & (2**bits - 1)
    return codes.flatten(axis, axis + 1)


def group_of_inputs(parts: Parts, ending: str, d_in: int, groups: int, size: object) -> Tensor:
    """Return the group of each input, as stored or in turn."""
    if ending in parts.found:
        stored = parts[ending]
        found = stored.fetch(()).long()
        if found.shape != (d_in,) or not bool(((found >= 0) & (found < groups)).all()):
            raise stored.wrong_shape(f"a group from 0 to {groups - 1} of each of {d_in} inputs")
        return found
    wide = d_in if size in (-1, None) else parts.number(size, "group_size")
    if -(-d_in // wide) != groups:
        raise CheckpointError(
            f"{parts.config}: has group_size {size!r}, of which {d_in} inputs make other than "
            f"{groups} groups: use the files that were saved together."
        )
    return torch.arange(d_in) // wide


def check_packed(tensor: StoredTensor, shape: tuple[int, ...]) -> None:
    if tensor.shape != shape:
        raise tensor.wrong_shape(f"{shape}")


def gptq(parts: Parts) -> Weight:
    """Return s (q − z), z less one in files of the first version; codes lie along the inputs."""
    bits = parts.number(parts.said.get("bits"), "bits", (4, 8))
    words, zeros, scales = parts[".qweight"], parts[".qzeros"], parts[".scales"]
    whole_numbers(words, 2)
    d_in, d_out = words.shape[0] * 32 // bits, words.shape[1]
    groups = scales.shape[0] if scales.shape else 0
    check_packed(scales, (groups, d_out))
    check_packed(zeros, (groups, d_out * bits // 32))
    less = 0 if parts.said.get("checkpoint_format") == "gptq_v2" else 1

    def fetch(block: Block) -> Tensor:
        rows = block[0] if block else ALL
        of = group_of_inputs(parts, ".g_idx", d_in, groups, parts.said.get("group_size"))
        codes = unpacked(words.fetch((ALL, rows)), bits, 0)
        # what was less than zero came round to the top
        zero = ((unpacked(zeros.fetch(()), bits, 1) + less) & (2**bits - 1))[:, rows]
        factors = finite(scales, (ALL, rows))
        numbers: Tensor = factors[of] * (codes - zero[of])
        return numbers.T.to(given_by(scales))

    return (d_out, d_in), given_by(scales), fetch


AWQ_ORDER = torch.tensor([0, 4, 1, 5, 2, 6, 3, 7])


def awq(parts: Parts) -> Weight:
    """Return (q − z) s; eight codes of outputs lie in one number in an order of their own."""
    version = str(parts.said.get("version") or parts.said.get("format") or "gemm").lower()
    parts.number(parts.said.get("bits", parts.said.get("w_bit")), "bits", (4,))
    words, zeros, scales = parts[".qweight"], parts[".qzeros"], parts[".scales"]
    whole_numbers(words, 2)
    d_in, d_out, groups = words.shape[0], words.shape[1] * 8, len(range(*scales.shape[:1]))
    if version != "gemm":
        raise CheckpointError(
            f"{parts.config}: has version {version!r} in its quantization_config; expected gemm."
        )
    check_packed(scales, (groups, d_out))
    check_packed(zeros, (groups, words.shape[1]))

    def fetch(block: Block) -> Tensor:
        first, last, _ = (block[0] if block else ALL).indices(d_out)
        some, rows = slice(first // 8, -(-last // 8)), slice(first % 8, first % 8 + last - first)
        size = parts.said.get("group_size", parts.said.get("q_group_size"))
        of = group_of_inputs(parts, ".g_idx", d_in, groups, size)
        codes, zero = (
            unpacked(one.fetch((ALL, some)), 4, 1)
            .reshape(d_in if one is words else groups, -1, 8)[:, :, AWQ_ORDER]
            .flatten(1)
            for one in (words, zeros)
        )
        numbers = (codes - zero[of])[:, rows] * finite(scales, (ALL, slice(first, last)))[of]
        return numbers.T.to(given_by(scales))

    return (d_out, d_in), given_by(scales), fetch


def packed_integers(parts: Parts) -> Weight:
    """Return (q − z) s of compressed-tensors, q and z packed with 2^(bits − 1) added."""
    words, scale, shape = parts[".weight_packed"], parts[".weight_scale"], parts[".weight_shape"]
    whole_numbers(words, 2)
    sizes = shape.fetch(()).flatten().tolist()
    d_out, d_in = words.shape[0], sizes[-1] if len(sizes) == 2 else 0
    said = weights_said(parts)
    fits = [one for one in said if words.shape[1] * 32 == d_in * (as_integer(one["num_bits"]) or 0)]
    if sizes != [d_out, d_in] or not fits:
        wanted = [one.get("num_bits") for one in said]
        raise words.wrong_shape(f"{sizes} numbers of {wanted} bits")
    bits = parts.number(fits[0]["num_bits"], "num_bits", (4, 8))
    groups = scale.shape[1] if len(scale.shape) == 2 else 1
    one = prod(scale.shape) == 1
    if not one and scale.shape != (d_out, groups):
        raise scale.wrong_shape(f"{(d_out, groups)}")
    half, size = 2 ** (bits - 1), fits[0].get("group_size") if groups > 1 else None
    if zeros := parts.found.get(".weight_zero_point"):
        check_packed(zeros, (-(-d_out * bits // 32), groups))

    def fetch(block: Block) -> Tensor:
        rows = block[0] if block else ALL
        of = group_of_inputs(parts, ".weight_g_idx", d_in, groups, size)
        codes = unpacked(words.fetch((rows,)), bits, 1) - half
        if zeros is not None:
            codes = codes - (unpacked(zeros.fetch(()), bits, 0)[:d_out] - half)[rows][:, of]
        factors = finite(scale).reshape(1, 1) if one else finite(scale, (rows,))[:, of]
        numbers: Tensor = codes * factors
        return numbers.to(given_by(scale))

    return (d_out, d_in), given_by(scale), fetch


# ---- codes of four bits that stand for numbers of a table

FP4 = torch.tensor([0.0, 0.5, 1.0, 1.5, 2.0, 3.0, 4.0, 6.0])


def mxfp4(parts: Parts) -> Weight:
    """Return FP4 numbers times powers of two, the lower half of a byte first, as (in, out)."""
    codes, exponents = parts["_blocks"], parts["_scales"]
    whole_numbers(codes, 4)
    experts, d_out, blocks, size = codes.shape
    check_packed(exponents, (experts, d_out, blocks))
    table = torch.cat([FP4, -FP4])

    def fetch(block: Block) -> Tensor:
        some = codes.fetch(block[:1]).int()
        powers = exponents.fetch(block[:1]).int()
        if bool((powers == 255).any()):
            raise CheckpointError(
                f"{exponents.path}: tensor {exponents.name!r} holds 255, which is NaN as an "
                "exponent: the file is damaged; download it again."
            )
        numbers = table[torch.stack([some & 15, some >> 4], dim=-1)].flatten(-2)
        found = torch.ldexp(numbers, powers[..., None] - 127).to(torch.bfloat16)
        turned: Tensor = found.flatten(-2).transpose(1, 2)
        return turned[(ALL, *block[1:])]

    return (experts, blocks * size * 2, d_out), torch.bfloat16, fetch


def four_bits_of_bitsandbytes(state_of: str, parts: Parts) -> Weight:
    """Return numbers of the stored table times the largest of their block, which may be packed."""
    codes, largest, table = parts[""], parts[".absmax"], parts[".quant_map"]
    stated = parts[state_of]
    try:
        state = json.loads(bytes(stated.fetch(()).tolist()))
        shape, size = tuple(map(int, state["shape"])), int(state["blocksize"])
        dtype, nested = getattr(torch, state["dtype"]), state.get("nested_blocksize")
        offset = torch.tensor(float(state.get("nested_offset", 0)))
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(
            f"{stated.path}: tensor {stated.name!r} is no state of a quantisation ({error}): "
            "download the file again."
        ) from error
    whole = -(-prod(shape) // 2) == prod(codes.shape) * codes.dtype.itemsize
    if len(shape) != 2 or size < 1 or dtype not in DTYPES.values() or not whole:
        raise codes.wrong_shape(f"{shape} numbers of four bits, in blocks of {size}")
    check_packed(largest, (-(-prod(shape) // size),))
    check_packed(table, (16,))

    def fetch(block: Block) -> Tensor:
        first, last, _ = (block[0] if block else ALL).indices(shape[0])
        at = torch.arange(first * shape[1], last * shape[1])
        packed = codes.fetch(()).contiguous().view(torch.uint8).flatten()[at // 2].int()
        factors = largest.fetch(())
        if nested:
            places = torch.arange(len(factors)) // int(nested)
            factors = finite(parts[".nested_quant_map"])[factors.long()]
            factors = factors * finite(parts[".nested_absmax"])[places] + offset
        else:
            factors = finite(largest)
        chosen = finite(table)[torch.where(at % 2 == 0, packed >> 4, packed & 15)]
        return (chosen * factors[at // size]).to(dtype).reshape(-1, shape[1])

    return shape, dtype, fetch
