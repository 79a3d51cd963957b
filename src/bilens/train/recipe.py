"""What all recipes share, and the device and precision that they are computed with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, get_args

import torch
from torch import nn

from bilens.base.checks import check_count
from bilens.base.errors import UsageError

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "float32", "bfloat16"]
CPU = torch.device("cpu")


def find_device(name: Device) -> torch.device:
    """Return a device by name; "auto" is a GPU where there is one."""
    if name not in get_args(Device):
        raise UsageError(f"device={name!r} is not known: use one of {', '.join(get_args(Device))}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device='cuda', but torch sees no GPU: use 'cpu', or check the driver.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def device_of(module: nn.Module) -> torch.device:
    return next(module.parameters()).device


def best_precision(device: torch.device) -> Precision:
    """Return bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if native else "float32"


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")


@dataclass(frozen=True)
class Recipe:
    """Everything that decides the weights of a training, and nothing else."""

    def resolved(self, device: torch.device = CPU) -> Self:
        """Return the recipe with the precision that "auto" means on a device."""
        if getattr(self, "precision", None) != "auto":
            return self
        changes: dict[str, Any] = {"precision": best_precision(device)}  # not every recipe has one
        return replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Return the recipe as JSON values."""
        found = asdict(self).items()
        return {name: list(x) if isinstance(x, tuple) else x for name, x in found}

    @classmethod
    def from_dict(cls, content: Mapping[str, Any]) -> Self:
        found = content.items()
        return cls(**{name: tuple(x) if isinstance(x, list) else x for name, x in found})


def check_fields(
    recipe: object,
    *,
    counts: Mapping[str, int],
    numbers: Sequence[str],
    positive: Sequence[str] = (),
    below_one: Sequence[str] = (),
    flags: Sequence[str] = (),
    choices: Mapping[str, Sequence[object]] | None = None,
) -> None:
    """Refuse a recipe with a field out of range; counts become int and numbers float."""
    for name, minimum in counts.items():
        value = getattr(recipe, name)
        if value is not None or getattr(type(recipe), name, None) is not None:
            object.__setattr__(recipe, name, check_count(name, value, minimum))
    for name in numbers:
        value = getattr(recipe, name)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or value < 0:
            raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
        object.__setattr__(recipe, name, float(value))
    for name in positive:
        if getattr(recipe, name) == 0:
            raise UsageError(f"{name} must be above 0.")
    for name in below_one:
        if getattr(recipe, name) >= 1:
            raise UsageError(f"{name} must be below 1, got {getattr(recipe, name)!r}.")
    for name in flags:
        if not isinstance(getattr(recipe, name), bool):
            raise UsageError(f"{name} must be True or False, got {getattr(recipe, name)!r}.")
    for name, allowed in (choices or {}).items():
        if getattr(recipe, name) not in allowed:
            known = ", ".join(map(str, allowed))
            raise UsageError(f"{name}={getattr(recipe, name)!r} is not known: use one of {known}.")
