"""Tokens: what a language model may be given, and the ones that it draws."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.base.checks import check_count
from bilens.base.errors import ShapeError, UsageError


def check_tokens(
    tokens: Tensor, padding_mask: Tensor | None, vocab_size: int, n_ctx: int
) -> tuple[int, int]:
    integers = isinstance(tokens, Tensor) and tokens.dtype in (torch.int64, torch.int32)
    if not integers or tokens.ndim != 2:
        raise ShapeError(
            f"tokens are {describe(tokens)}; expected int64 or int32 of shape (batch, tokens), for "
            "instance torch.tensor([tokenizer.encode(text)])."
        )
    batch, length = tokens.shape
    if not 1 <= length <= n_ctx or batch == 0:
        raise UsageError(
            f"tokens have shape {(batch, length)}; expected at least one text of 1 to {n_ctx} "
            "tokens (n_ctx): cut the texts, or train a model with a longer context."
        )
    low, high = (int(end) for end in torch.aminmax(tokens))
    if low < 0 or high >= vocab_size:
        raise UsageError(
            f"tokens range from {low} to {high}; the model knows 0 to {vocab_size - 1}: use the "
            "tokenizer that it was trained with."
        )
    if padding_mask is not None:
        fits = isinstance(padding_mask, Tensor) and padding_mask.dtype is torch.bool
        if not fits or padding_mask.shape != tokens.shape:
            raise ShapeError(
                f"padding_mask must be a tensor of bool and shape {(batch, length)}, True at real "
                f"tokens; got {describe(padding_mask)}."
            )
    return batch, length


def describe(value: object) -> str:
    if isinstance(value, Tensor):
        return f"a tensor of dtype {value.dtype} and shape {tuple(value.shape)}"
    return f"a {type(value).__name__}"


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws tokens from logits."""

    temperature: float  # 0 takes the most probable token
    top_k: int | None
    generator: torch.Generator | None  # None for torch's own

    def __post_init__(self) -> None:
        number = isinstance(self.temperature, int | float)
        if not number or not 0 <= self.temperature < math.inf:
            raise UsageError(
                f"temperature must be a number of at least 0, got {self.temperature!r}."
            )
        if self.top_k is not None:
            check_count("top_k", self.top_k, minimum=1)

    def draw(self, logits: Tensor) -> Tensor:
        """Return a token for each row, (batch, vocab_size) → (batch, 1)."""
        if self.temperature == 0:
            return logits.argmax(dim=-1, keepdim=True)
        logits = logits.double() / self.temperature
        if self.top_k is not None and self.top_k < logits.shape[-1]:
            top = logits.topk(self.top_k, dim=-1)
            drawn = torch.multinomial(top.values.softmax(-1), 1, generator=self.generator)
            return top.indices.gather(-1, drawn)
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=self.generator)


def continue_texts(
    next_logits: Callable[[Tensor], Tensor],
    tokens: Tensor,
    max_new_tokens: int,
    sampler: Sampler,
    end_token: int | None,
) -> Tensor:
    """Return texts with up to `max_new_tokens` behind them."""
    ended = torch.zeros(len(tokens), 1, dtype=torch.bool, device=tokens.device)
    text, new = [tokens], tokens
    for _ in range(max_new_tokens):
        new = sampler.draw(next_logits(new)).to(tokens.dtype)
        if end_token is not None:
            new = new.masked_fill(ended, end_token)
            ended = ended | (new == end_token)
        text.append(new)
        if bool(ended.all()):
            break
    return torch.cat(text, dim=1)
