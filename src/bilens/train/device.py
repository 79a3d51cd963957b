"""Where a training computes, and in which precision. No other file of `train` names a device."""

from __future__ import annotations

from typing import Any, Literal, get_args

import torch
from torch import nn

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
    """Return where the weights of a module are."""
    return next(module.parameters()).device


def best_precision(device: torch.device) -> Precision:
    """Return bfloat16 where the device multiplies it natively, else float32."""
    if device.type == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported() else "float32"
    capabilities: dict[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    native = capabilities.get("avx512_bf16") or capabilities.get("amx_bf16")
    return "bfloat16" if native else "float32"


def autocast(module: nn.Module, precision: Precision) -> torch.autocast:
    """Return the context in which a module multiplies in a precision, wherever it is."""
    return torch.autocast(device_of(module).type, torch.bfloat16, enabled=precision == "bfloat16")
