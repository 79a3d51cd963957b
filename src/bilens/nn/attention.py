"""Causal self-attention with rotary positions."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.nn.rotary import rotate


@dataclass(eq=False)
class KeyValueCache:
    """Keys and values of the tokens so far: one block's memory of a text in the making.

    Attributes:
        keys: (batch, heads, positions, d_head), filled up to `length`.
        values: likewise.
        length: positions filled.
    """

    keys: Tensor
    values: Tensor
    length: int = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        """Add new positions; return the keys and values of all so far."""
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


@dataclass(frozen=True, eq=False)
class Positions:
    """Where the tokens of a batch stand, and which earlier ones each may look at.

    Attributes:
        cosines: of the rotary angles, broadcast against (batch, tokens, heads, d_head/2).
        sines: likewise.
        visible: (batch, 1, queries, keys), True where a query may look; None is causal.
    """

    cosines: Tensor
    sines: Tensor
    visible: Tensor | None


class Attention(nn.Module):
    """out(softmax(q kᵀ / √d_head) v) for each head, (batch, tokens, d_model) → the same.

    The rows of `qkv` are those of the queries, the keys and the values, head after head in each.

    Args:
        d_model: width of the residual stream.
        n_head: number of heads; d_model / n_head is the width of each.
    """

    def __init__(self, d_model: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, positions: Positions, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Return what the heads add to the residual stream."""
        batch, tokens, d_model = x.shape
        turned, v = self.qkv(x).split([2 * d_model, d_model], dim=-1)
        shape = (batch, tokens, -1, d_model // self.n_head)
        turned = rotate(turned.view(shape), positions.cosines, positions.sines)
        q, k = turned.transpose(1, 2).chunk(2, dim=1)
        v = v.view(shape).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(k, v)
        heads = functional.scaled_dot_product_attention(
            q,
            k,
            v,
            attn_mask=positions.visible,
            is_causal=positions.visible is None and tokens > 1,
        )
        y: Tensor = self.out(heads.transpose(1, 2).reshape(batch, tokens, d_model))
        return y


def visible_keys(real: Tensor) -> Tensor:
    """Return which tokens each token may look at, (batch, tokens) → (batch, 1, tokens, tokens).

    A token sees itself and the real ones before it. What stands at padding is computed from
    itself, so that no row of the softmax is empty, and nobody reads it.
    """
    tokens = real.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=real.device).tril()
    itself = torch.eye(tokens, dtype=torch.bool, device=real.device)
    return ((causal & real[:, None, :]) | itself)[:, None]
