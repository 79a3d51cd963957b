"""Small transformers, and what they compute written from the definitions, one query at a time.

The second half imports torch alone and nothing of ours, so that the two cannot share a mistake.
"""

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

import oracles
from bilens.nn import BilinearTransformer

SIZES: dict[str, Any] = {
    "vocab_size": 11,
    "d_model": 8,
    "d_hidden": 6,
    "n_layer": 2,
    "n_head": 2,
    "n_ctx": 7,
}
KINDS: dict[str, dict[str, Any]] = {
    "bilinear": {},
    "relu": {"gate": "relu"},
    "gelu": {"gate": "gelu"},
    "silu, biases": {"gate": "silu", "bias": True},
    "biases": {"bias": True},
    "tied": {"tied": True},
    "ordinary": {"mlp_type": "ordinary"},
    "ordinary, biases": {"mlp_type": "ordinary", "bias": True},
    "other constants": {"rotary_base": 50.0, "norm_epsilon": 0.3},
}


def make(seed: int = 0, dtype: torch.dtype = torch.float64, **options: Any) -> BilinearTransformer:
    """A small model whose weights, biases too, are far from their start."""
    model = BilinearTransformer(**{**SIZES, **options}).to(dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / math.sqrt(parameter.shape[-1]))
    return model


def some_tokens(*shape: int, seed: int = 0, vocab_size: int = 11) -> Tensor:
    """Random tokens."""
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, vocab_size, shape, generator=generator)


def logits_by_hand(
    state: Mapping[str, Tensor],
    tokens: Tensor,
    n_head: int,
    gate: str | None = None,
    ordinary: bool = False,
    rotary_base: float = 10000.0,
    norm_epsilon: float = 1e-5,
) -> Tensor:
    """Logits of one text, (tokens,) → (tokens, vocab_size), from a state dict."""
    x = torch.stack([state["embed.weight"][token] for token in tokens.tolist()])
    n_layer = 1 + max(int(name.split(".")[1]) for name in state if name.startswith("blocks."))
    for index in range(n_layer):
        weights = {
            name.removeprefix(f"blocks.{index}."): value
            for name, value in state.items()
            if name.startswith(f"blocks.{index}.")
        }
        x = x + attention(normalised(x, norm_epsilon), weights, n_head, rotary_base)
        x = x + mlp(normalised(x, norm_epsilon), weights, gate, ordinary)
    return normalised(x, norm_epsilon) @ state.get("unembed.weight", state["embed.weight"]).T


def normalised(x: Tensor, epsilon: float) -> Tensor:
    """Each row over the root of its mean square."""
    return torch.stack([row / math.sqrt(float((row * row).mean()) + epsilon) for row in x])


def turned(x: Tensor, position: int, base: float) -> Tensor:
    """The pairs (i, i + d/2) as complex numbers, times e^{iθ}, which Llama rounds to float32."""
    half = len(x) // 2
    frequencies = 1.0 / torch.tensor(base) ** (torch.arange(half).float() * 2 / len(x))
    angles = position * frequencies
    turn = torch.complex(angles.cos().to(x.dtype), angles.sin().to(x.dtype))
    pairs = torch.complex(x[:half], x[half:]) * turn
    return torch.cat([pairs.real, pairs.imag])


def attention(x: Tensor, weights: Mapping[str, Tensor], n_head: int, base: float) -> Tensor:
    """Each query looks at itself and at what is before it."""
    d_model = x.shape[1]
    q, k, v = (x @ weights["attention.qkv.weight"].T).split(d_model, dim=1)
    rows = []
    for here in range(len(x)):
        parts = []
        for head in torch.arange(d_model).chunk(n_head):
            query = turned(q[here, head], here, base)
            keys = [turned(k[there, head], there, base) for there in range(here + 1)]
            scores = torch.stack([query @ key for key in keys]) / math.sqrt(len(head))
            parts.append(scores.softmax(dim=0) @ v[: here + 1, head])
        rows.append(torch.cat(parts))
    return torch.stack(rows) @ weights["attention.out.weight"].T


def mlp(x: Tensor, weights: Mapping[str, Tensor], gate: str | None, ordinary: bool) -> Tensor:
    """down(gate(left x) ∘ right x), or down(gelu(up x))."""
    if ordinary:
        up = x @ weights["mlp.up.weight"].T + weights.get("mlp.up.bias", 0.0)
        hidden = up * (1 + torch.erf(up / math.sqrt(2))) / 2
    else:
        names = [f"mlp.{side}.{kind}" for kind in ("weight", "bias") for side in ("left", "right")]
        hidden = oracles.layer(x, *(weights.get(name) for name in names), gate)
    return hidden @ weights["mlp.down.weight"].T + weights.get("mlp.down.bias", 0.0)
