"""The device and the precision that recipes are computed with."""

from typing import get_args

import torch
from torch import nn

from bilens.base.errors import UsageError
from bilens.base.option_rules import Device, Precision

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


def autocast(device: torch.device, precision: Precision) -> torch.autocast:
    """Return the context in which a step computes in its precision."""
    return torch.autocast(device.type, torch.bfloat16, enabled=precision == "bfloat16")
