"""Odd inputs with one defined outcome each: how to make one, and what is said about it."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from bilens.base.errors import BilensError, NonFiniteError, ShapeError


@dataclass(frozen=True)
class Odd:
    """A damage to a good float64 tensor, the error it must lead to, and words of its message."""

    name: str
    of: Callable[[Tensor], Any]
    message: str = ""
    error: type[BilensError] = ShapeError

    def __str__(self) -> str:
        return self.name


def poisoned(value: float, last: bool = False) -> Callable[[Tensor], Tensor]:
    """Put a value into the first or the last entry; a solver may not even look at the last one."""

    def damage(tensor: Tensor) -> Tensor:
        flat = tensor.clone().reshape(-1)
        flat[-1 if last else 0] = value
        return flat.reshape(tensor.shape)

    return damage


NOT_FINITE = [
    Odd("nan first", poisoned(torch.nan), r"1 non-finite .* at index \((0|\))", NonFiniteError),
    Odd("nan last", poisoned(torch.nan, last=True), "1 non-finite value", NonFiniteError),
    Odd("inf first", poisoned(torch.inf), r"1 non-finite .* at index \((0|\))", NonFiniteError),
    Odd("-inf last", poisoned(-torch.inf, last=True), "1 non-finite value", NonFiniteError),
]
REAL = "a real floating-point tensor"
NOT_DENSE_FLOAT = [
    Odd("bool", lambda t: t.bool(), rf"dtype torch.bool; {REAL} .*: use .*\.double\(\)"),
    Odd("int32", lambda t: t.int(), rf"dtype torch.int32; {REAL} .*: use .*\.double\(\)"),
    Odd("int64", lambda t: t.long(), rf"dtype torch.int64; {REAL} .*: use .*\.double\(\)"),
    Odd("complex", lambda t: t.to(torch.complex128), f"dtype torch.complex128; {REAL}"),
    Odd("float8", lambda t: t.to(torch.float8_e5m2), f"dtype torch.float8_e5m2; {REAL}"),
    Odd("meta", lambda t: t.to("meta"), "on the meta device; a dense tensor was expected"),
    Odd("sparse", lambda t: t.to_sparse(), "sparse or .*; a dense tensor was expected"),
    Odd("list", lambda t: t.tolist(), r"is a (list|float); a torch.Tensor .*torch.as_tensor"),
    Odd("numpy", lambda t: t.numpy(), "is a ndarray; a torch.Tensor was expected: use"),
]
WRONG_AXES = Odd("one axis too many", lambda t: t[None], r"has shape \(1,.* (axes were )?expected")
REFUSED = [*NOT_FINITE, *NOT_DENSE_FLOAT, WRONG_AXES]


def strided(tensor: Tensor) -> Tensor:
    """The same entries, one in memory out of two."""
    wide = tensor.new_zeros(*tensor.shape, 2)
    wide[..., 0] = tensor
    return wide[..., 0]


SOUND = [
    Odd("non-contiguous", strided),
    Odd("transposed in memory", lambda t: t.mT.contiguous().mT if t.ndim > 1 else t),
    Odd("negated view", lambda t: torch._neg_view(-t)),
    Odd("requires grad", lambda t: t.clone().requires_grad_()),
    Odd("parameter", lambda t: torch.nn.Parameter(t.clone())),
    Odd("read-only memory", lambda t: read_only(t)),
]


def read_only(tensor: Tensor) -> Tensor:
    """A tensor over memory that numpy has locked; torch warns when it makes one."""
    array = tensor.numpy().copy()
    tensor = torch.from_numpy(array)  # shares the memory
    array.setflags(write=False)
    return tensor


LOW_PRECISION = [torch.float32, torch.float16, torch.bfloat16]
