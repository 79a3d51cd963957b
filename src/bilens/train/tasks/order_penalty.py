"""A penalty on what a polynomial language model does with three tokens or more together."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.tokens import mean_cross_entropy
from bilens.train.randomness import NOISE, stream

APART = 1 / 8  # share of the positions of a text that are set apart from the others
PENALISED = 1 / 8  # share of the texts that are penalised: each takes three more runs


@dataclass(frozen=True)
class PenalisedLoss:
    """The cross-entropy of the next token, whose gradient is that of a penalised loss.

    Math: with f(S) the logit of the true next token at a position when only those before it in S
        hold a token, f(all) − f(S) − f(all ∖ S) + f(∅) is the sum of all its interactions of three
        tokens or more that have earlier ones on both sides: zero where pairs explain everything.
        Texts and S are drawn, and the mean of squares times `weight` is added.
    """

    model: PolynomialTransformer
    weight: float
    seed: int

    def __call__(self, texts: Tensor) -> Tensor:
        """Compute the cross-entropy of texts, (batch, tokens + 1)."""
        drawn = self.draw(texts) if torch.is_grad_enabled() else {}
        if not drawn:  # in an evaluation, too
            return self.model.next_token_loss(texts)
        rows, apart = [*drawn], torch.stack([*drawn.values()]).to(texts.device)
        x, high = split_by_order(self.model, texts[:, :-1], rows, apart)
        head, then = self.model.unembed.weight, texts[:, 1:].long()
        loss = mean_cross_entropy(x.flatten(0, 1), head, then.flatten())
        squares = (high * (head[then[rows]] - head.mean(dim=0))).sum(dim=-1).square()
        penalty = self.weight / PENALISED * squares.sum() / then.numel()
        return loss + (penalty - penalty.detach())

    def draw(self, texts: Tensor) -> dict[int, Tensor]:
        """Draw which texts are penalised, and which positions of each are set apart.

        Each text has a stream of its own: what is drawn is the same however a batch is divided,
        and in a run that is resumed.
        """
        drawn = {}
        for row, text in enumerate(texts.tolist()):
            numbers = torch.rand(len(text), generator=stream(self.seed, NOISE, *text))
            if numbers[-1] < PENALISED:
                drawn[row] = numbers[:-1] < APART
        return drawn


def split_by_order(
    model: PolynomialTransformer, tokens: Tensor, rows: list[int], apart: Tensor
) -> tuple[Tensor, Tensor]:
    """Compute what the head reads of texts, and what of it has earlier tokens on both sides.

    Args:
        model: all runs are one call of its parts.
        tokens: (batch, tokens).
        rows: the texts that are split.
        apart: (rows, tokens), which positions are on one side.
    """
    few, nothing = tokens[rows], torch.zeros_like(apart)
    everything = torch.ones_like(tokens, dtype=torch.bool)
    read = torch.cat([everything, apart, ~apart, nothing])
    x = model.final_scale(model.stream(torch.cat([tokens, few, few, few]), read))
    one_side, other_side, alone = x[len(tokens) :].chunk(3)
    return x[: len(tokens)], x[rows] - one_side - other_side + alone
