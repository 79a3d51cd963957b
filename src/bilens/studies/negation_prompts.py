"""The grammar's one rule as a number: how far a negator turns the logits of a feeling around."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import UsageError
from bilens.data.story_grammar import FEELINGS, StoryGrammar
from bilens.data.tokenizer import Tokenizer
from bilens.interp.interventions import Edit
from bilens.nn.transformer import BilinearTransformer


@dataclass(frozen=True, eq=False)
class NegationPrompts:
    """Minimal pairs, and the MLP whose input may be edited while they are read.

    Attributes:
        model: a language model of the grammar.
        hook: name of the input of the MLP.
        tokens: (2 · pairs, length); plain and negated prompts in turns, padded at the end.
        last: (2 · pairs,), position of the last token of each prompt.
        polarity: (pairs,), ±1, of the sentiment word.
        positive: token ids of the positive feelings.
        negative: token ids of the negative feelings.
    """

    model: BilinearTransformer
    hook: str
    tokens: Tensor
    last: Tensor
    polarity: Tensor
    positive: Tensor
    negative: Tensor

    @classmethod
    def of(
        cls, model: BilinearTransformer, hook: str, tokenizer: Tokenizer, num: int, seed: int
    ) -> NegationPrompts:
        """Return `num` minimal pairs of a seed, each behind the end of a text."""
        prompts = StoryGrammar().minimal_pairs(num, seed)
        end = tokenizer.end_of_text
        ids = [[end, *tokenizer.encode(prompt.prompt)] for prompt in prompts]
        length = max(map(len, ids))
        return cls(
            model,
            hook,
            torch.tensor([each + [end] * (length - len(each)) for each in ids]),
            torch.tensor([len(each) - 1 for each in ids]),
            torch.tensor([prompt.polarity for prompt in prompts[::2]]),
            word_tokens(tokenizer, FEELINGS[1]),
            word_tokens(tokenizer, FEELINGS[-1]),
        )

    @property
    def feelings(self) -> Tensor:
        """(2 · pairs,), ±1, the feeling that the rule asks for."""
        return torch.stack([self.polarity, -self.polarity], dim=1).flatten()

    def margins(self, edit: Edit | None = None) -> tuple[Tensor, Tensor]:
        """Return polarity · (logit of positive − negative feelings), plain and negated, (pairs,).

        The logit of a list of words is the logarithm of the sum of their exponentials.
        """
        replace = None if edit is None else {self.hook: edit}
        with torch.no_grad():
            logits, _ = self.model.run(self.tokens, replace=replace)
        logits = logits[torch.arange(len(logits)), self.last].double()
        difference = logits[:, self.positive].logsumexp(1) - logits[:, self.negative].logsumexp(1)
        plain, negated = difference[::2], difference[1::2]
        return self.polarity * plain, self.polarity * negated

    def flip(self, edit: Edit | None = None) -> Tensor:
        """Return plain − negated margin of each pair, (pairs,): what the negator turns around."""
        plain, negated = self.margins(edit)
        return plain - negated

    def inputs(self) -> Tensor:
        """Return what the MLP reads at the end of each prompt, (2 · pairs, d_model)."""
        with torch.no_grad():
            found = self.model.activations(self.tokens, (self.hook,))[self.hook]
        return found[torch.arange(len(found)), self.last]

    def loss_elsewhere(self, blocks: Tensor, edit: Edit | None = None) -> float:
        """Return the loss in nats a token on text, words of feeling left out.

        Args:
            blocks: (num, length) tokens.
            edit: of what the MLP reads.
        """
        replace = None if edit is None else {self.hook: edit}
        with torch.no_grad():
            logits, _ = self.model.run(blocks, replace=replace)
        targets = blocks[:, 1:].flatten()
        losses = functional.cross_entropy(
            logits[:, :-1].flatten(0, 1), targets, reduction="none"
        ).double()
        feeling = torch.isin(targets, torch.cat([self.positive, self.negative]))
        return float(losses[~feeling].mean())


def word_tokens(tokenizer: Tokenizer, words: Sequence[str]) -> Tensor:
    """Return the tokens of words that are one token each.

    Raises:
        UsageError: If one is not.
    """
    found = []
    for word in words:
        ids = tokenizer.encode(word)
        if len(ids) != 1:
            raise UsageError(
                f"{word!r} is {len(ids)} tokens in this model's tokenizer; the study needs one "
                'each: train the model with tokenizer="word".'
            )
        found += ids
    return torch.tensor(found)
