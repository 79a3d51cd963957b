"""A penalty on what a polynomial language model does with three tokens or more together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.tokens import mean_cross_entropy
from bilens.train.randomness import NOISE, stream

APART = 1 / 8  # share of the positions that are set apart from the others
EVERY = 8  # one text of so many is penalised: each takes three more runs


@dataclass(frozen=True)
class PenalisedLoss:
    """The cross-entropy of the next token, whose gradient is that of a penalised loss.

    Math: with f(S) the logit of the true next token at a position when only those before it in S
        hold a token, f(all) − f(S) − f(all ∖ S) + f(∅) is the sum of all its interactions of three
        tokens or more that have earlier ones on both sides: zero where pairs explain everything.
        S is drawn anew for each batch, and the mean of squares times `weight` is added.
    """

    model: PolynomialTransformer
    weight: float
    seed: int

    def __call__(self, texts: Tensor) -> Tensor:
        """Compute the cross-entropy of texts, (batch, tokens + 1)."""
        if not torch.is_grad_enabled():  # an evaluation
            return self.model.next_token_loss(texts)
        # a stream of the texts: what is drawn is the same in a run that is resumed
        drawn = torch.rand(texts[::EVERY, 1:].shape, generator=self.stream_of(texts))
        x, high = split_by_order(self.model, texts, drawn.to(texts.device) < APART)
        head, then = self.model.unembed.weight, texts[:, 1:]
        loss = mean_cross_entropy(x.flatten(0, 1), head, then.flatten().long())
        rows = head[then[::EVERY]] - head.mean(dim=0)
        penalty = self.weight * (high * rows).sum(dim=-1).square().mean()
        return loss + (penalty - penalty.detach())

    def stream_of(self, texts: Tensor) -> torch.Generator:
        """Return the generator of a batch."""
        return stream(self.seed, NOISE, int(texts.sum()))


def split_by_order(
    model: PolynomialTransformer, texts: Tensor, apart: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute what the head reads of texts, and what of it has earlier tokens on both sides.

    Args:
        model: all runs are one call of its parts.
        texts: (batch, tokens + 1), the last token of each not read.
        apart: (every EVERY-th text, tokens), which positions are on one side.
    """
    tokens, few = texts[:, :-1], texts[::EVERY, :-1]
    everything, nothing = torch.ones_like(tokens, dtype=torch.bool), torch.zeros_like(apart)
    read = torch.cat([everything, apart, ~apart, nothing])
    x = model.final_scale(model.stream(torch.cat([tokens, few, few, few]), read))
    whole = x[: len(texts)]
    one_side, other_side, alone = x[len(texts) :].chunk(3)
    return whole, whole[::EVERY] - one_side - other_side + alone
