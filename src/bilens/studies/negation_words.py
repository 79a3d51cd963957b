"""Where text negates and where it speaks of a sentiment, and which latents do: the truth to check.

Word lists judge a ranking here; they never enter one.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.data.tokenizer import Tokenizer

NEGATORS = ("not", "never", "no", "didn't", "don't", "couldn't", "wasn't", "can't", "isn't")
SENTIMENT = {
    1: ("happy", "excited", "nice", "good", "glad", "proud", "kind", "safe", "brave", "fun"),
    -1: ("sad", "scared", "angry", "mad", "mean", "bad", "hurt", "tired", "afraid", "upset"),
}
WINDOW = 3  # tokens behind a negator, in the same sentence
MOSTLY = 0.5  # of a latent's activation: what makes it one of a kind


@dataclass(frozen=True, eq=False)
class TruthWords:
    """Words as tokens of one tokenizer; those of several tokens are left out, negators end one.

    Attributes:
        negators: last tokens of the negators.
        positive: tokens of the positive words.
        negative: tokens of the negative words.
        stops: tokens that end a sentence.
    """

    negators: Tensor
    positive: Tensor
    negative: Tensor
    stops: Tensor

    @classmethod
    def of(cls, tokenizer: Tokenizer) -> TruthWords:
        """Return the words in a tokenizer."""

        def single(words: tuple[str, ...]) -> Tensor:
            ids = [tokenizer.encode(f" {word}") for word in words]
            return torch.tensor([each[0] for each in ids if len(each) == 1], dtype=torch.long)

        last = {tokenizer.encode(f" {word}")[-1] for word in NEGATORS}
        stops = {tokenizer.encode(f"so{mark}")[-1] for mark in (".", "!", "?")}
        return cls(
            torch.tensor(sorted(last)),
            single(SENTIMENT[1]),
            single(SENTIMENT[-1]),
            torch.tensor(sorted({*stops, tokenizer.end_of_text})),
        )

    def negated(self, blocks: Tensor) -> Tensor:
        """Return which tokens are a negator, or behind one in its sentence, (texts, length)."""
        at, stop = torch.isin(blocks, self.negators), torch.isin(blocks, self.stops)
        found, reach = at.clone(), at
        for _ in range(WINDOW):
            reach = torch.nn.functional.pad(reach[:, :-1], (1, 0), value=False) & ~stop
            found |= reach
        return found

    def sentiment(self, blocks: Tensor) -> Tensor:
        """Return which tokens are a sentiment word, (texts, length)."""
        return torch.isin(blocks, torch.cat([self.positive, self.negative]))


@dataclass(frozen=True, eq=False)
class InputKinds:
    """Which input latents are mostly active where text negates, or speaks of a sentiment.

    Attributes:
        negation: (latents,) bool, at least MOSTLY of the activation is at negated tokens that are
            no sentiment words, or at both.
        sentiment: (latents,) bool, likewise at sentiment words; none of the former.
    """

    negation: Tensor
    sentiment: Tensor

    @classmethod
    def of(cls, z: Tensor, blocks: Tensor, words: TruthWords, least_active: int) -> InputKinds:
        """Return the kinds of all latents.

        Args:
            z: (tokens, latents), of all but the first token of each text.
            blocks: (texts, length).
            words: of the tokenizer.
            least_active: a latent that fewer tokens activate is of no kind.
        """
        often = (z > 0).sum(dim=0) >= least_active

        def mostly(mask: Tensor) -> Tensor:
            return (mask[:, 1:].flatten().to(z) @ z >= MOSTLY * z.sum(dim=0)) & often

        negation = mostly(words.negated(blocks))
        return cls(negation, mostly(words.sentiment(blocks)) & ~negation)

    def couple(self, first: Tensor, second: Tensor) -> Tensor:
        """Return where one latent is of negation and the other of sentiment, (rows,).

        Args:
            first: (rows, entries), input latents; below zero where there is none.
            second: the others.
        """
        one = self.negation[first] & self.sentiment[second]
        other = self.sentiment[first] & self.negation[second]
        return ((one | other) & (first >= 0)).any(dim=-1)

    def negate(self, first: Tensor, second: Tensor) -> Tensor:
        """Return where exactly one latent is of negation, (rows,)."""
        return ((self.negation[first] ^ self.negation[second]) & (first >= 0)).any(dim=-1)
