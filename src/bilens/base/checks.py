"""Checks that the upper layers share: shape, dtype, finiteness.

A check hands back the fact that it established, so that a caller gains by calling it.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.base.errors import NonFiniteError, ShapeError, UsageError
from bilens.base.option_rules import as_integer as as_integer, check_count as check_count

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


def check_loaded(name: str, tensor: Tensor) -> Tensor:
    """Return a tensor that holds numbers, and is not a plan of one on the meta device."""
    if tensor.is_meta:
        raise UsageError(f"{name} is on the meta device and holds nothing: load the weights.")
    return tensor


def check_finite(name: str, tensor: Tensor) -> Tensor:
    """Return the tensor if every entry is finite; NaN must never reach a solver."""
    if tensor.numel() == 0 or not tensor.is_floating_point():
        return tensor
    wide = tensor.detach()
    if wide.element_size() == 1:
        wide = wide.float()  # torch does not compare floats of 8 bits
    ends = torch.stack(wide.aminmax())  # NaN passes through; no array of the same size
    if not bool(torch.isfinite(ends).all()):
        bad = (~torch.isfinite(wide)).nonzero()
        position = tuple(bad[0].tolist())
        raise NonFiniteError(
            f"{name} holds {len(bad)} non-finite value(s) (NaN or infinity), the first one at "
            f"index {position}: every entry must be finite."
        )
    return tensor


def check_choice(name: str, value: object, choices: Sequence[object]) -> None:
    if value not in choices:
        known = ", ".join(map(str, choices))
        raise UsageError(f"{name}={value!r} is not known: use one of {known}.")


def generator_of(seed: int | torch.Generator) -> torch.Generator:
    """Return the generator that a seed starts, or one that goes on from where it is."""
    if isinstance(seed, torch.Generator):
        return seed
    number = as_integer(seed)
    if number is None or number < 0:
        raise UsageError(f"seed is {seed!r}; expected an integer from 0 on, or a torch.Generator.")
    return torch.Generator().manual_seed(number)


def check_type(name: str, value: object, expected: type, advice: str) -> None:
    if not isinstance(value, expected):
        raise UsageError(
            f"{name} is a {type(value).__name__}; expected {expected.__name__}: {advice}."
        )
