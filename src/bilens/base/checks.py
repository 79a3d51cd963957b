"""Checks that the upper layers share: shape, dtype, finiteness, memory.

A check hands back the fact that it established, so that a caller gains by calling it.
"""

from __future__ import annotations

import math
import os
import re
from numbers import Integral

import torch
from torch import Tensor

from bilens.base.errors import MemoryLimitError, NonFiniteError, ShapeError, UsageError

MEMORY_LIMIT_VARIABLE = "BILENS_MEMORY_LIMIT"
MEMORY_SHARE = 0.75  # of the memory there is, when the variable is not set
CONTAINER_LIMITS = (  # bytes, or "max"; cgroup v2 and v1
    "/sys/fs/cgroup/memory.max",
    "/sys/fs/cgroup/memory/memory.limit_in_bytes",
)
UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)


def check_dense_tensor(
    name: str, tensor: Tensor, num_axes: int | None = None, like: Tensor | None = None
) -> tuple[int, ...]:
    """Return the shape of a dense, real floating-point tensor; its entries are not looked at."""
    if not isinstance(tensor, Tensor):
        raise ShapeError(
            f"{name} is a {type(tensor).__name__}; a torch.Tensor was expected: "
            "use torch.as_tensor(...)."
        )
    if tensor.layout is not torch.strided or tensor.is_meta:
        raise ShapeError(f"{name} is sparse or on the meta device; a dense tensor was expected.")
    if tensor.dtype not in DTYPES:
        raise ShapeError(
            f"{name} has dtype {tensor.dtype}; a real floating-point tensor (float64, float32, "
            f"float16 or bfloat16) was expected: use {name}.double()."
        )
    if num_axes is not None and tensor.ndim != num_axes:
        raise ShapeError(f"{name} has shape {tuple(tensor.shape)}; {num_axes} axes were expected.")
    if like is not None and (tensor.dtype != like.dtype or tensor.device != like.device):
        raise ShapeError(
            f"{name} has dtype {tensor.dtype} on {tensor.device}; {like.dtype} on {like.device} "
            f"was expected: use {name}.to({like.dtype})."
        )
    return tuple(tensor.shape)


def check_float_tensor(
    name: str, tensor: Tensor, num_axes: int | None = None, like: Tensor | None = None
) -> tuple[int, ...]:
    """Return the shape of a tensor that passes `check_dense_tensor` and is finite."""
    shape = check_dense_tensor(name, tensor, num_axes, like)
    check_finite(name, tensor)
    return shape


def check_finite(name: str, tensor: Tensor) -> Tensor:
    """Return the tensor if every entry is finite; NaN must never reach a solver."""
    if tensor.numel() == 0:
        return tensor
    ends = torch.stack(tensor.detach().aminmax())  # NaN passes through; no array of the same size
    if not bool(torch.isfinite(ends).all()):
        bad = (~torch.isfinite(tensor)).nonzero()
        place = tuple(bad[0].tolist())
        raise NonFiniteError(
            f"{name} holds {len(bad)} non-finite value(s) (NaN or infinity), the first one at "
            f"index {place}: every entry must be finite."
        )
    return tensor


def as_integer(value: object) -> int | None:
    """Return an integer of Python or numpy as an int; None for anything else, a bool too."""
    if isinstance(value, bool) or not isinstance(value, Integral):
        return None
    return int(value)


def check_count(name: str, value: int, minimum: int) -> int:
    """Return an integer of Python or numpy that is at least `minimum`, as an int."""
    number = as_integer(value)
    if number is None or number < minimum:
        raise UsageError(f"{name} must be an integer of at least {minimum}, got {value!r}.")
    return number


def check_type(name: str, value: object, expected: type, advice: str) -> None:
    """Refuse an argument of another type."""
    if not isinstance(value, expected):
        raise UsageError(
            f"{name} is a {type(value).__name__}; expected {expected.__name__}: {advice}."
        )


def parse_bytes(text: str) -> int:
    """Return the bytes of a size such as "800M", "4GiB" or "4000000000"."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?", text.strip().lower())
    if match is None or not 0 < float(match[1]) < math.inf:
        raise UsageError(
            f"{text!r} is not a memory size: write a positive number with an optional unit, "
            "for example 800M or 4GiB."
        )
    return int(float(match[1]) * UNITS[match[2]])


def readable(num_bytes: int) -> str:
    """Return a size for people, in GiB, or in MiB below one."""
    unit, name = (2**30, "GiB") if num_bytes >= 2**30 else (2**20, "MiB")
    return f"{num_bytes / unit:.2f} {name}"


def memory_limit(chosen: int | str | None = None) -> int:
    """Return the bytes one computation may use."""
    number = as_integer(chosen)
    if number is not None and number > 0:
        return number
    if chosen is not None and not isinstance(chosen, str):
        raise UsageError(
            f"the memory limit is {chosen!r}; expected a positive number of bytes or a text such "
            "as 4GiB."
        )
    text = chosen if chosen is not None else os.environ.get(MEMORY_LIMIT_VARIABLE)
    if text or chosen is not None:
        return parse_bytes(text or "")
    return int(MEMORY_SHARE * available_memory())


def available_memory() -> int:
    """Return the bytes of physical memory, or of what the container may use where that is less."""
    limits = [os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")]
    for path in CONTAINER_LIMITS:
        try:
            with open(path, encoding="ascii") as file:  # noqa: PTH123 - a fact of the kernel
                text = file.read().strip()
        except OSError:  # no such limit on this machine
            continue
        if text.isdecimal():
            limits.append(int(text))
    return min(limits)


def check_memory(num_bytes: int, what: str, instead: str, limit: int | str | None = None) -> int:
    """Return `num_bytes` if it is within the limit."""
    allowed = memory_limit(limit)
    if num_bytes > allowed:
        more = f"set {MEMORY_LIMIT_VARIABLE}" if limit is None else "allow a larger memory_limit"
        raise MemoryLimitError(
            f"{what} needs {readable(num_bytes)}, the limit is {readable(allowed)}: "
            f"{instead}, or {more}."
        )
    return num_bytes
