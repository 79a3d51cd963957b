"""Which output latents are looked at."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.base.errors import UsageError

INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


def check_latents(latents: Tensor | Sequence[int] | None, available: int) -> Tensor:
    """Return numbers of output latents as int64; all of them for None.

    Raises:
        UsageError: If there are none, one is no integer or given twice, or there is no such latent.
    """
    if latents is None:
        return torch.arange(available)
    chosen = torch.as_tensor(latents)
    if chosen.dtype not in INTEGERS or chosen.ndim != 1 or len(chosen) == 0:
        raise UsageError(
            f"latents holds {chosen.dtype} in shape {tuple(chosen.shape)}; a list of numbers of "
            "output latents was expected."
        )
    chosen = chosen.long().cpu()
    if int(chosen.min()) < 0 or int(chosen.max()) >= available:
        raise UsageError(
            f"latents runs from {int(chosen.min())} to {int(chosen.max())}; there are output "
            f"latents 0 to {available - 1}."
        )
    if len(set(chosen.tolist())) < len(chosen):
        raise UsageError("latents names a latent twice: name each one once.")
    return chosen
