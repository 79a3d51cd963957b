"""Minimal pairs of running text that differ in a *not*: what a negator does to the next word."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import UsageError
from bilens.data.tokenizer import Tokenizer
from bilens.interp.interventions import NUM_RESAMPLES, Edit, Interval, interval
from bilens.nn.transformer import BilinearTransformer
from bilens.studies.negation_words import SENTIMENT, TruthWords

WORDS = {  # of each polarity, as many: those that the text uses behind "was"
    1: ("happy", "excited", "nice", "good", "proud"),
    -1: ("sad", "scared", "angry", "mad", "bad"),
}
SUBJECTS = (("Tim", "He"), ("Lily", "She"), ("The dog", "It"), ("The boy", "He"), ("Sue", "She"))
OPENERS = ("One day, {0} went to the park. ", "{0} saw a big tree. ")
FRAMES = {
    "and": "{0} was{not} {word} and",
    "felt": "{0} was{not} {word}. {1} felt",
    "was": "{0} was{not} {word}. {1} was",
}


@dataclass(frozen=True, eq=False)
class NegationPairs:
    """Minimal pairs, and the MLP whose input may be edited while they are read.

    Attributes:
        model: a language model.
        hook: name of the input of the MLP.
        tokens: (frames · words · contexts · 2, length); plain and negated in turns, padded.
        last: as many, the position of the last token of each.
        polarity: (words,), ±1.
        positive: token ids of the positive words that may follow.
        negative: of the negative ones.
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
        cls,
        model: BilinearTransformer,
        hook: str,
        tokenizer: Tokenizer,
        words: TruthWords,
        openers: Sequence[str] = OPENERS,
    ) -> NegationPairs:
        """Return the pairs behind some openers, each behind the end of a text.

        Raises:
            UsageError: If the tokenizer has no sentiment word as one token.
        """
        if min(len(words.positive), len(words.negative)) == 0:
            raise UsageError(
                "the tokenizer of this model has no token for one of "
                f"{', '.join(SENTIMENT[1])}, or none for one of {', '.join(SENTIMENT[-1])}: the "
                "study needs both."
            )
        texts = [
            opener.format(name) + frame.format(name, pronoun, word=word, **{"not": negator})
            for frame in FRAMES.values()
            for polarity in WORDS
            for word in WORDS[polarity]
            for name, pronoun in SUBJECTS
            for opener in openers
            for negator in ("", " not")
        ]
        end = tokenizer.end_of_text
        ids = [[end, *tokenizer.encode(text)] for text in texts]
        length = max(map(len, ids))
        return cls(
            model,
            hook,
            torch.tensor([each + [end] * (length - len(each)) for each in ids]),
            torch.tensor([len(each) - 1 for each in ids]),
            torch.tensor([polarity for polarity in WORDS for _ in WORDS[polarity]]),
            words.positive,
            words.negative,
        )

    def leaning(self, edit: Edit | None = None) -> Tensor:
        """Return log odds of positive against negative next words, (frames, words, 2).

        The logit of a list of words is the logarithm of the sum of their exponentials; contexts
        are averaged; plain before negated.
        """
        replace = None if edit is None else {self.hook: edit}
        with torch.no_grad():
            logits, _ = self.model.run(self.tokens, replace=replace)
        logits = logits[torch.arange(len(logits)), self.last].double()
        odds = logits[:, self.positive].logsumexp(1) - logits[:, self.negative].logsumexp(1)
        return odds.view(len(FRAMES), len(self.polarity), -1, 2).mean(dim=2)

    def flip(self, edit: Edit | None = None) -> Tensor:
        """Return what a negator turns around, (frames, words), in logits.

        Math: polarity · (plain − negated): above zero where *not happy* leans to the negative by
            as much as *not sad* leans to the positive.
        """
        leaning = self.leaning(edit)
        return self.polarity * (leaning[..., 0] - leaning[..., 1])

    def shift(self, edit: Edit | None = None) -> Tensor:
        """Return how far a negator moves everything to the negative, (frames, words), in logits."""
        leaning = self.leaning(edit)
        return leaning[..., 0] - leaning[..., 1]

    def unheard(self) -> Edit:
        """Return an edit by which the MLP reads, behind a negator, what it reads without one.

        What this MLP makes of a negator at the tokens behind it is gone, whatever the directions;
        the negator itself is read as it is.
        """
        plain, negated = self.tokens[::2], self.tokens[1::2]
        at = (plain != negated).int().argmax(dim=1)[:, None]
        position = torch.arange(self.tokens.shape[1])[None]
        source = torch.where(position > at, position - 1, position)[..., None]
        itself = (position == at)[..., None]

        def edit(x: Tensor) -> Tensor:
            without = x[::2].gather(1, source.expand_as(x[::2]))
            edited = x.clone()
            edited[1::2] = torch.where(itself, x[1::2], without)
            return edited

        return edit


def over_words(values: Tensor, generator: torch.Generator) -> Interval:
    """Return the mean over words, with a 95 % interval of resampled words.

    Words are drawn within each half of the list, so that both polarities stay equally many.
    """
    half = len(values) // 2
    picks = torch.randint(half, (NUM_RESAMPLES, 2, half), generator=generator)
    parts = torch.stack([values[:half], values[half:]])
    draws = torch.stack([parts[side][picks[:, side]].mean(dim=1) for side in range(2)])
    return interval(values.mean(), draws.mean(dim=0))


def loss_elsewhere(
    model: BilinearTransformer, hook: str, blocks: Tensor, negated: Tensor, edit: Edit | None
) -> float:
    """Return the loss in nats a token at tokens that no negator stands before."""
    replace = None if edit is None else {hook: edit}
    with torch.no_grad():
        logits, _ = model.run(blocks, replace=replace)
    losses = functional.cross_entropy(
        logits[:, :-1].flatten(0, 1), blocks[:, 1:].flatten(), reduction="none"
    )
    return float(losses[~negated[:, :-1].flatten()].double().mean())
