"""Quantised weights of Hugging Face folders, each made into its numbers when it is read.

A scheme is how a library stores one weight: which tensors, told apart by how their names end, and
what number each code stands for. Whatever has no such tensors beside it stays as it is.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from bilens.base.errors import CheckpointError
from bilens.io.byte_ranges import Block, Span
from bilens.io.formats.quantised_codes import (
    Parts,
    Weight,
    awq,
    eight_bits,
    four_bits_of_bitsandbytes,
    fp8_in_blocks,
    gptq,
    int8_of_bitsandbytes,
    mxfp4,
    packed_integers,
)
from bilens.io.stored_mlp import Store, StoredTensor
from bilens.io.tensors import DTYPES


@dataclass(frozen=True)
class Scheme:
    """The tensors that a library stores one quantised weight in, and how they are read."""

    about: str
    # how the names of its tensors end, behind a part that they share; "" for the weight itself.
    # Only a weight that is stored so has one with the first.
    needs: tuple[str, ...]
    weight: Callable[[Parts], Weight]
    may: tuple[str, ...] = ()  # of those that may be beside them
    by_rows: bool = False  # whether codes of some rows are read without the others

    @property
    def ending(self) -> str:
        """The ending of the weight's name."""
        return ".weight" if "" not in self.needs and self.needs[0].startswith(".") else ""


INPUTS = (".input_scale", ".activation_scale", ".output_scale")  # of activations: no weights
PLAIN = Scheme("8-bit numbers", (".weight_scale", ".weight"), eight_bits, by_rows=True)
ROWS = Scheme("int8 by rows", (".SCB", ".weight"), int8_of_bitsandbytes, (".weight_format",), True)
IN_GROUPS = (".weight_packed", ".weight_scale", ".weight_shape")
AROUND_ZERO = (".weight_zero_point", ".weight_g_idx")
PACKED = Scheme("packed integers", IN_GROUPS, packed_integers, AROUND_ZERO, True)
ZEROS = (".qweight", ".qzeros", ".scales")


def four_bits(kind: str) -> Scheme:
    needs = (f".quant_state.bitsandbytes__{kind}", "", ".absmax", ".quant_map")
    weight = partial(four_bits_of_bitsandbytes, needs[0])
    return Scheme(kind.upper(), needs, weight, (".nested_absmax", ".nested_quant_map"))


METHODS: dict[str, tuple[Scheme, ...]] = {
    "fp8": (Scheme("FP8 in blocks", ("_scale_inv", ""), fp8_in_blocks, by_rows=True), PLAIN),
    "fbgemm_fp8": (PLAIN,),
    "compressed-tensors": (PACKED, PLAIN),
    "gptq": (Scheme("GPTQ", ZEROS, gptq, (".g_idx",)),),
    "awq": (Scheme("AWQ", ZEROS, awq),),
    "mxfp4": (Scheme("MXFP4", ("_blocks", "_scales"), mxfp4),),
    "bitsandbytes": (four_bits("nf4"), four_bits("fp4"), ROWS),
}


def quantisation_of(content: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the quantisation entry of a configuration; None for a model that has none."""
    inner = content.get("text_config")
    for one in (content, inner if isinstance(inner, dict) else {}):
        for key in ("quantization_config", "compression_config"):
            if one.get(key):
                return one[key] if isinstance(one[key], dict) else {"quant_method": one[key]}
    return None


Packed = tuple[Scheme, dict[str, str]]  # a weight, and its tensors by how their names end


def packed_weights(
    config: Path, said: Mapping[str, Any], names: Iterable[str]
) -> tuple[dict[str, Packed], list[str]]:
    """Return the weights that are stored as codes, by name, and the tensors that are not."""
    method = said.get("quant_method")
    schemes = METHODS.get(method) if isinstance(method, str) else None
    if schemes is None:
        raise CheckpointError(
            f"{config}: the model is quantised by {method!r} (quant_method); read are "
            f"{', '.join(METHODS)}: save it in floating point."
        )
    left, made = dict.fromkeys(names), dict[str, Packed]()
    for scheme in schemes:
        for name in [name for name in left if name.endswith(scheme.needs[0])]:
            rest = name.removesuffix(scheme.needs[0])
            endings = (*scheme.needs, *scheme.may)
            found = {end: rest + end for end in endings if rest + end in left}
            if missing := [rest + end for end in scheme.needs if end not in found]:
                raise CheckpointError(
                    f"{config.parent}: has {name!r} and lacks {missing[0]!r}, which "
                    f"{scheme.about} takes: check that the download is complete."
                )
            for part in found.values():
                del left[part]
            made[rest + scheme.ending] = scheme, found
    if not made:
        raise CheckpointError(
            f"{config}: says that the model is quantised by {method!r}, and no tensor beside it is "
            f"called …{schemes[0].needs[0]}: use the files that were saved together."
        )
    return made, [name for name in left if not name.endswith(INPUTS)]


def dequantised(
    config: Path, said: Mapping[str, Any], store: Store, weights: Mapping[str, Packed]
) -> Store:
    """Return weights that are stored as codes."""
    made = {}
    for name, (scheme, found) in weights.items():
        parts = {end: store[one] for end, one in found.items()}
        shape, dtype, fetch = scheme.weight(Parts(parts, said, config))
        codes = parts.get(scheme.ending, parts[scheme.needs[0]])
        locate = partial(bytes_of, [*parts.values()], shape, codes if scheme.by_rows else None)
        made[name] = StoredTensor(
            codes.path, name, shape, dtype, fetch, locate=locate, quantised_as=scheme.about
        )
    return made


def bytes_of(
    parts: list[StoredTensor], shape: tuple[int, ...], codes: StoredTensor | None, block: Block
) -> tuple[Span, ...]:
    """Return the bytes that a block is made of: of a stack the matrices that are asked for."""
    stack, found = len(shape) - 2, list[Span]()
    for part in parts:
        some = block if part is codes else block[:stack]
        found += part.locate(some if part.shape[:stack] == shape[:stack] else ())
    return tuple(found)


def check_numbers(tensors: Iterable[StoredTensor], method: object) -> None:
    """Refuse codes that nothing says the numbers of."""
    for tensor in tensors:
        if tensor.dtype not in DTYPES.values():
            raise CheckpointError(
                f"{tensor.path}: tensor {tensor.name!r} is of {tensor.dtype} and has no scale "
                f"beside it, as {method} stores one: check that the download is complete."
            )
