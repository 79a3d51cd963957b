"""Rotary positions: pairs of coordinates of a query or key, turned by an angle of its position."""

import math
from functools import lru_cache

import torch
from torch import Tensor

from bilens.base.errors import UsageError


def check_rotary_base(base: object) -> None:
    """Refuse a base of rotary angles that is no positive number."""
    number = isinstance(base, int | float) and not isinstance(base, bool)
    if not number or not 0 < float(base) < math.inf:  # type: ignore[arg-type]
        raise UsageError(f"rotary_base must be a positive number, got {base!r}.")


def rotary_frequencies(d_head: int, base: float, device: torch.device | None = None) -> Tensor:
    """Compute base^(−2i/d_head) for each pair i, (d_head/2,) float32."""
    return 1.0 / base ** (torch.arange(0, d_head, 2, device=device).float() / d_head)


@lru_cache(maxsize=16)
def rotation_table(
    num_positions: int, d_head: int, base: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Compute cosines and sines of position · base^(−2i/d_head), each (num_positions, d_head/2)."""
    with torch.inference_mode(False):  # the table is kept, and training may be next to read it
        # in float32, as Llama forms them, so that both are the same function
        positions = torch.arange(num_positions, device=device).float()
        angles = positions[:, None] * rotary_frequencies(d_head, base, device)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + d_head/2) of the last axis; Llama and the paper pair them so too."""
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
