"""The parts of a transformer: sizes, hook points, norm, rotary positions, attention, block."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field
from typing import get_args

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.base.checks import check_count
from bilens.base.errors import ShapeError, UsageError
from bilens.base.option_rules import MLPType as MLPType
from bilens.nn.mlp import MLP, BilinearMLP, Gate, check_gate
from bilens.polynomial.rotary import rotate

SIZES = ("vocab_size", "d_model", "d_hidden", "n_layer", "n_head", "n_ctx")


@dataclass(frozen=True)
class TransformerConfig:
    """The arguments of `BilinearTransformer`, checked."""

    vocab_size: int
    d_model: int
    d_hidden: int
    n_layer: int
    n_head: int
    n_ctx: int
    gate: Gate | None
    tied: bool
    bias: bool
    rotary_base: float
    norm_epsilon: float
    mlp_type: MLPType

    def __post_init__(self) -> None:
        for name in SIZES:  # numpy's integers become Python's, which JSON can hold
            object.__setattr__(self, name, check_count(name, getattr(self, name), minimum=1))
        for name in ("rotary_base", "norm_epsilon"):
            value = getattr(self, name)
            number = isinstance(value, int | float) and not isinstance(value, bool)
            if not number or not 0 < value < math.inf:
                raise UsageError(f"{name} must be a positive number, got {value!r}.")
            object.__setattr__(self, name, float(value))
        if self.d_model % (2 * self.n_head) != 0:
            raise UsageError(
                f"d_model is {self.d_model} and n_head is {self.n_head}: each head needs an even "
                f"width, so d_model must be a multiple of {2 * self.n_head}."
            )
        check_gate(self.gate)
        if self.mlp_type not in get_args(MLPType):
            raise UsageError(f'mlp_type={self.mlp_type!r} is not known: use "gated" or "ordinary".')
        if self.mlp_type == "ordinary" and (self.gate is not None or self.d_hidden % 2 == 1):
            raise UsageError(
                f"gate={self.gate!r} and d_hidden={self.d_hidden} do not fit an ordinary MLP: it "
                "has no gate, and 3/2 · d_hidden neurons must be a whole number."
            )

    @property
    def d_head(self) -> int:
        return self.d_model // self.n_head


# ---- named points where activations are read or replaced during a run

POINTS = ("resid_pre", "attn_out", "resid_mid", "mlp_in", "mlp_out", "resid_post")
NAME = re.compile(rf"blocks\.(0|[1-9]\d*)\.({'|'.join(POINTS)})", re.ASCII)

Edit = Callable[[Tensor], Tensor]
# Is shown an activation by the name of its point; what it returns takes the activation's place.
Observer = Callable[[str, Tensor], Tensor]


def unobserved(_point: str, value: Tensor) -> Tensor:
    """Return the value as it is: the observer of a run that nobody watches."""
    return value


@dataclass(frozen=True, eq=False)
class Hooks:
    """The activations that a run captures, and those that it replaces."""

    capture: frozenset[str]
    replace: Mapping[str, Edit]
    # filled during the run; after the edit where there is one
    captured: dict[str, Tensor] = field(default_factory=dict)

    @classmethod
    def for_run(cls, capture: Collection[str], replace: Mapping[str, Edit], n_layer: int) -> Hooks:
        """Return the hooks of a run."""
        if isinstance(capture, str):
            raise UsageError(f"capture is the text {capture!r}; expected names in a tuple.")
        for name in (*capture, *replace):
            hook_layer(name, n_layer)
        return cls(frozenset(capture), dict(replace))

    def observer(self, layer: int) -> Observer:
        """Return the function that is shown each activation of one block."""
        names = {point: f"blocks.{layer}.{point}" for point in POINTS}
        if not {*names.values()} & (self.capture | {*self.replace}):
            return unobserved
        return lambda point, value: self._meet(names[point], value)

    def _meet(self, name: str, value: Tensor) -> Tensor:
        if name in self.replace:
            edited = self.replace[name](value.clone())  # which it may change in place
            if not isinstance(edited, Tensor) or edited.shape != value.shape:
                came = tuple(edited.shape) if isinstance(edited, Tensor) else type(edited).__name__
                raise ShapeError(
                    f"the function that replaces {name} returned {came}; expected a tensor of "
                    f"shape {tuple(value.shape)}."
                )
            value = edited
        if name in self.capture:
            self.captured[name] = value
        return value


def hook_layer(name: str, n_layer: int) -> int:
    """Return the layer of a hook point."""
    match = NAME.fullmatch(name) if isinstance(name, str) else None
    if match is None or int(match[1]) >= n_layer:
        raise UsageError(
            f"{name!r} is no hook point: expected blocks.{{i}}.{{point}} with i below {n_layer} "
            f"and the point one of {', '.join(POINTS)}."
        )
    return int(match[1])


# ---- modules


class RMSNorm(nn.Module):
    """x / √(mean(x²) + ε), without a gain: a gain belongs to the weights that read the result."""

    def __init__(self, epsilon: float) -> None:
        super().__init__()
        self.epsilon = epsilon

    def forward(self, x: Tensor) -> Tensor:
        """Return the normalised inputs, (..., d) → (..., d)."""
        return functional.rms_norm(x, x.shape[-1:], eps=self.epsilon)


@dataclass(eq=False)
class KeyValueCache:
    """Keys and values of the tokens so far: one block's memory of a text in the making."""

    keys: Tensor  # (batch, heads, positions, d_head), filled up to `length`
    values: Tensor
    length: int = 0

    def append(self, keys: Tensor, values: Tensor) -> tuple[Tensor, Tensor]:
        end = self.length + keys.shape[2]
        self.keys[:, :, self.length : end] = keys
        self.values[:, :, self.length : end] = values
        self.length = end
        return self.keys[:, :, :end], self.values[:, :, :end]


@dataclass(frozen=True, eq=False)
class Positions:
    """Where the tokens of a batch stand, and which earlier ones each may look at."""

    cosines: Tensor  # broadcast against (batch, tokens, heads, d_head/2)
    sines: Tensor
    visible: Tensor | None  # (batch, 1, queries, keys), True where it may look; None is causal


class Attention(nn.Module):
    """out(softmax(q kᵀ / √d_head) v) for each head, (batch, tokens, d_model) → the same."""

    def __init__(self, d_model: int, n_head: int) -> None:
        super().__init__()
        self.n_head = n_head
        # rows of the queries, the keys and the values, head after head in each
        self.qkv = nn.Linear(d_model, 3 * d_model, bias=False)
        self.out = nn.Linear(d_model, d_model, bias=False)

    def forward(
        self, x: Tensor, positions: Positions, cache: KeyValueCache | None = None
    ) -> Tensor:
        """Return the output of the heads, which is added to the residual stream."""
        batch, tokens, d_model = x.shape
        turned, v = self.qkv(x).split([2 * d_model, d_model], dim=-1)
        shape = (batch, tokens, -1, d_model // self.n_head)
        turned = rotate(turned.view(shape), positions.cosines, positions.sines)
        q, k = turned.transpose(1, 2).chunk(2, dim=1)
        v = v.view(shape).transpose(1, 2)
        if cache is not None:
            k, v = cache.append(k, v)
        heads = functional.scaled_dot_product_attention(
            q, k, v, attn_mask=positions.visible, is_causal=positions.visible is None and tokens > 1
        )
        y: Tensor = self.out(heads.transpose(1, 2).reshape(batch, tokens, d_model))
        return y


def visible_keys(real: Tensor) -> Tensor:
    """Return which tokens each token may look at, (batch, tokens) → (batch, 1, tokens, tokens)."""
    tokens = real.shape[1]
    causal = torch.ones(tokens, tokens, dtype=torch.bool, device=real.device).tril()
    # padding sees itself, so that no row of the softmax is empty; nobody reads what it gives
    itself = torch.eye(tokens, dtype=torch.bool, device=real.device)
    return ((causal & real[:, None, :]) | itself)[:, None]


class Block(nn.Module):
    """x ← x + attention(norm x), then x ← x + mlp(norm x)."""

    def __init__(self, config: TransformerConfig) -> None:
        super().__init__()
        d_model, d_hidden, bias = config.d_model, config.d_hidden, config.bias
        self.attention_norm = RMSNorm(config.norm_epsilon)
        self.attention = Attention(d_model, config.n_head)
        self.mlp_norm = RMSNorm(config.norm_epsilon)
        self.mlp: BilinearMLP | MLP = (
            BilinearMLP(d_model, d_hidden, bias=bias, gate=config.gate)
            if config.mlp_type == "gated"
            else MLP(d_model, 3 * d_hidden // 2, bias=bias)
        )

    def forward(
        self,
        x: Tensor,
        positions: Positions,
        observe: Observer = unobserved,
        cache: KeyValueCache | None = None,
    ) -> Tensor:
        """Return the residual stream behind the block, (batch, tokens, d_model) → the same."""
        x = observe("resid_pre", x)
        x = x + observe("attn_out", self.attention(self.attention_norm(x), positions, cache))
        x = observe("resid_mid", x)
        x = x + observe("mlp_out", self.mlp(observe("mlp_in", self.mlp_norm(x))))
        return observe("resid_post", x)


class TiedHead(nn.Module):
    """x ↦ embed.weight x. It owns no weight, so that files and optimisers see it once."""

    def __init__(self, embed: nn.Embedding) -> None:
        super().__init__()
        self._embed = (embed,)  # in a tuple: a module kept as an attribute would be a child

    @property
    def weight(self) -> Tensor:
        return self._embed[0].weight

    def forward(self, x: Tensor) -> Tensor:
        """Return logits, (..., d_model) → (..., vocab_size)."""
        return functional.linear(x, self.weight)
