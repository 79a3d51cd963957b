"""Where a training computes."""

from __future__ import annotations

from typing import Literal, get_args

import torch

from bilens.base.errors import UsageError
from bilens.train.recipe import Precision, has_native_bfloat16

Device = Literal["auto", "cpu", "cuda"]


def find_device(name: Device) -> torch.device:
    """Return a device by name; "auto" is a GPU where there is one.

    Raises:
        UsageError: If the name is not known, or there is no GPU.
    """
    if name not in get_args(Device):
        raise UsageError(f"device={name!r} is not known: use one of {', '.join(get_args(Device))}.")
    if name == "cuda" and not torch.cuda.is_available():
        raise UsageError("device='cuda', but torch sees no GPU: use 'cpu', or check the driver.")
    return torch.device("cuda" if name != "cpu" and torch.cuda.is_available() else "cpu")


def best_precision(device: torch.device) -> Precision:
    """Return bfloat16 where the device multiplies it natively, else float32."""
    native = torch.cuda.is_bf16_supported() if device.type == "cuda" else has_native_bfloat16()
    return "bfloat16" if native else "float32"
