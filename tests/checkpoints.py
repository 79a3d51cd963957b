"""Checkpoints of the paper's repository, and safetensors files byte by byte."""

import json
import struct
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

OFFICIAL_SHAPES = {"blocks.0.weight": [4, 2], "embed.weight": [2, 3], "head.weight": [2, 2]}
Header = dict[str, Any]


def safetensors(header: object, data: bytes) -> bytes:
    """The format, from its definition: length of the header, header, one buffer."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape: list[int], start: int, end: int, dtype: str = "F32") -> Header:
    """What the header says about one tensor."""
    return {"dtype": dtype, "shape": shape, "data_offsets": [start, end]}


def official(change: Callable[[Header], object] = lambda _: None, data: bytes = bytes(72)) -> bytes:
    """A good official checkpoint, 8 + 6 + 4 = 18 floats of 4 bytes, or a damaged one."""
    header = {
        "blocks.0.weight": entry([4, 2], 0, 32),
        "embed.weight": entry([2, 3], 32, 56),
        "head.weight": entry([2, 2], 56, 72),
    }
    change(header)
    return safetensors(header, data)


def official_state(
    n_layer: int = 1, bias: bool = False, sizes: tuple[int, int, int] = (6, 4, 3), seed: int = 0
) -> dict[str, Tensor]:
    """A state dict with the names and shapes of the official image model."""
    generator = torch.Generator().manual_seed(seed)
    d_input, d_hidden, d_output = sizes

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=generator)

    state = {"embed.weight": randn(d_hidden, d_input), "head.weight": randn(d_output, d_hidden)}
    for n in range(n_layer):
        state[f"blocks.{n}.weight"] = randn(2 * d_hidden, d_hidden)
        if bias:
            state[f"blocks.{n}.bias"] = randn(2 * d_hidden)
    return state


def official_logits(state: dict[str, Tensor], x: Tensor, residual: bool) -> Tensor:
    """The forward pass of the official layout, written from its description.

    embed; for each block l, r = the halves of weight h + bias and h = l ∘ r (+ h); head.
    """
    h = x @ state["embed.weight"].T
    n = 0
    while f"blocks.{n}.weight" in state:
        both = h @ state[f"blocks.{n}.weight"].T
        if f"blocks.{n}.bias" in state:
            both = both + state[f"blocks.{n}.bias"]
        left, right = both.chunk(2, dim=-1)
        h = left * right + h if residual else left * right
        n += 1
    return h @ state["head.weight"].T
