"""Quantised weights of Hugging Face folders, each made into its numbers when it is read.

A scheme is how a library stores one weight: which tensors, told apart by how their names end, and
what number each code stands for. Whatever has no such tensors beside it stays as it is. Products
are rounded once, to the dtype that the library itself gives.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens.base.checks import as_integer
from bilens.base.errors import CheckpointError
from bilens.io.stored_mlp import Block, Store, StoredTensor
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


@dataclass(frozen=True)
class Scheme:
    """How a library stores one weight."""

    about: str
    mark: str  # what the name of one of its tensors ends with; the weight has the rest as its name
    needs: tuple[str, ...]  # what must stand in the place of the mark; "" is the weight itself
    weight: Callable[[Parts], Weight]
    may: tuple[str, ...] = ()  # what may
    ending: str = ""  # what the name of the weight ends with, behind that rest


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


def eight_bits(parts: Parts) -> Weight:
    return scaled(parts[".weight"], parts[".weight_scale"], None)


INPUTS = (".input_scale", ".activation_scale", ".output_scale")  # of activations: no weights
BLOCKS = Scheme("FP8 in blocks", "_scale_inv", ("", "_scale_inv"), fp8_in_blocks)
PLAIN = Scheme(
    "8-bit numbers",
    ".weight_scale",
    (".weight", ".weight_scale"),
    eight_bits,
    ending=".weight",
)
METHODS: dict[str, tuple[Scheme, ...]] = {  # by quant_method
    "fp8": (BLOCKS, PLAIN),
    "fbgemm_fp8": (PLAIN,),
    "compressed-tensors": (PLAIN,),
}


def quantisation_of(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return what a configuration says of its quantisation; None for a model that has none."""
    inner = content.get("text_config")
    for one in (content, inner if isinstance(inner, dict) else {}):
        for key in ("quantization_config", "compression_config"):
            if one.get(key):
                return one[key] if isinstance(one[key], dict) else {"quant_method": one[key]}
    return None


def dequantised(config: Path, said: Mapping[str, Any], store: Store) -> tuple[Store, str]:
    """Return the tensors with each weight in the place of what it is stored as, and as what."""
    method = said.get("quant_method")
    schemes = METHODS.get(method) if isinstance(method, str) else None
    if schemes is None:
        raise CheckpointError(
            f"{config}: the model is quantised by {method!r} (quant_method); read are "
            f"{', '.join(METHODS)}: save it in floating point."
        )
    left, made, used = dict(store), {}, set()
    for scheme in schemes:
        for name in [name for name in left if name.endswith(scheme.mark)]:
            rest = name.removesuffix(scheme.mark)
            endings = (*scheme.needs, *scheme.may)
            found = {e: left.pop(rest + e) for e in endings if rest + e in left}
            if missing := [rest + e for e in scheme.needs if e not in found]:
                raise CheckpointError(
                    f"{store[name].path}: has {name!r} and lacks {missing[0]!r}, which "
                    f"{scheme.about} takes: check that the download is complete."
                )
            title = rest + scheme.ending
            shape, dtype, fetch = scheme.weight(Parts(found, said, config))
            made[title] = StoredTensor(store[name].path, title, shape, dtype, fetch)
            used.add(scheme.about)
    if not made:
        raise CheckpointError(
            f"{config}: says that the model is quantised by {method!r}, and no tensor beside it is "
            f"called …{schemes[0].mark}: use the files that were saved together."
        )
    left = {name: tensor for name, tensor in left.items() if not name.endswith(INPUTS)}
    return {**left, **made}, ", ".join(sorted(used))


def check_numbers(store: Store, method: object) -> None:
    """Refuse codes that nothing says the numbers of."""
    for tensor in store.values():
        if tensor.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{tensor.path}: tensor {tensor.name!r} is of {tensor.dtype} and has no scale "
                f"beside it, as {method} stores one: check that the download is complete."
            )
