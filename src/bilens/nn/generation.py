"""Text, token after token."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.base.checks import check_count
from bilens.base.errors import UsageError


@dataclass(frozen=True, eq=False)
class Sampler:
    """Draws tokens from logits.

    Attributes:
        temperature: the logits are divided by it; 0 takes the most probable token.
        top_k: draw among so many most probable tokens; None for all.
        generator: None for torch's own.

    Raises:
        UsageError: If a number is out of range.
    """

    temperature: float
    top_k: int | None
    generator: torch.Generator | None

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
            place = torch.multinomial(top.values.softmax(-1), 1, generator=self.generator)
            return top.indices.gather(-1, place)
        return torch.multinomial(logits.softmax(dim=-1), 1, generator=self.generator)


def continue_texts(
    next_logits: Callable[[Tensor], Tensor],
    tokens: Tensor,
    max_new_tokens: int,
    sampler: Sampler,
    end_token: int | None,
) -> Tensor:
    """Return texts with up to `max_new_tokens` behind them.

    Args:
        next_logits: is given what is new, first the texts and then each token, and returns the
            logits (batch, vocab_size) of the token that follows.
        tokens: (batch, tokens).
        max_new_tokens: at most so many.
        sampler: chooses each token.
        end_token: where a text has drawn it, it goes on with this token alone; None for never.
    """
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
