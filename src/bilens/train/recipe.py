"""What all recipes share, and the device and precision that they are computed with."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal, Self, Union, get_args, get_origin, get_type_hints

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
    least: Mapping[str, int],
    positive: Sequence[str] = (),
    below_one: Sequence[str] = (),
) -> None:
    """Refuse a recipe with a field out of range; counts become int and numbers float.

    What a field may be is its type. `least` are the smallest counts other than 1, and those of
    counts that may be None.
    """
    for name, kind in get_type_hints(type(recipe)).items():
        value, known = getattr(recipe, name), choices_of(kind)
        if kind is int or (name in least and value is not None):
            object.__setattr__(recipe, name, check_count(name, value, least.get(name, 1)))
        elif kind is float:
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not math.isfinite(value) or value < 0:
                raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
            object.__setattr__(recipe, name, float(value))
        elif kind is bool and not isinstance(value, bool):
            raise UsageError(f"{name} must be True or False, got {value!r}.")
        elif known and value not in known:
            named = ", ".join(map(str, known))
            raise UsageError(f"{name}={value!r} is not known: use one of {named}.")
    for name in positive:
        if getattr(recipe, name) == 0:
            raise UsageError(f"{name} must be above 0.")
    for name in below_one:
        if getattr(recipe, name) >= 1:
            raise UsageError(f"{name} must be below 1, got {getattr(recipe, name)!r}.")


def choices_of(kind: Any) -> tuple[object, ...]:
    """Return the values that a field of this type is one of; nothing where it is no choice."""
    if get_origin(kind) is Literal:
        return get_args(kind)
    parts = get_args(kind) if get_origin(kind) is Union else ()
    values = [value for part in parts for value in choices_of(part)]
    return (None, *values) if values else ()
