"""Rotary position embeddings: pairs of coordinates turned by an angle that grows with position."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


def rotary_frequencies(d_head: int, base: float, device: torch.device | None = None) -> Tensor:
    """Return base^(−2i/d_head) for each pair i, (d_head/2,) float32."""
    return 1.0 / base ** (torch.arange(0, d_head, 2, device=device).float() / d_head)


@lru_cache(maxsize=16)
def rotation_table(
    num_positions: int, d_head: int, base: float, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """Return cosines and sines of position · base^(−2i/d_head), each (num_positions, d_head/2).

    Angles are formed in float32, as Llama forms them, so that both are the same function.

    Source: arXiv:2104.09864, §3.2.2.
    """
    with torch.inference_mode(False):  # the table is kept, and training may be next to read it
        positions = torch.arange(num_positions, device=device).float()
        angles = positions[:, None] * rotary_frequencies(d_head, base, device)
        return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(x: Tensor, cosines: Tensor, sines: Tensor) -> Tensor:
    """Turn the pairs (i, i + d_head/2) of the last axis; Llama and the paper pair them so too.

    Args:
        x: (..., d_head).
        cosines: of each position, broadcast against (..., d_head/2).
        sines: likewise.
    """
    first, second = x.chunk(2, dim=-1)
    return torch.cat([first * cosines - second * sines, second * cosines + first * sines], dim=-1)
