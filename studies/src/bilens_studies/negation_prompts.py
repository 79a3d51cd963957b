"""Minimal pairs of the grammar and of running text: the effect of a negator on the next word.

Word lists judge a ranking here; they never enter one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from bilens.base.errors import UsageError
from bilens.data import FEELINGS, StoryGrammar, Tokenizer
from bilens.interp import NUM_RESAMPLES, Edit, interval
from bilens.nn import BilinearTransformer
from bilens_studies.study import Record, to_json

NEGATORS = ("not", "never", "no", "didn't", "don't", "couldn't", "wasn't", "can't", "isn't")
SENTIMENT = {
    1: ("happy", "excited", "nice", "good", "glad", "proud", "kind", "safe", "brave", "fun"),
    -1: ("sad", "scared", "angry", "mad", "mean", "bad", "hurt", "tired", "afraid", "upset"),
}
WINDOW = 3  # tokens behind a negator, in the same sentence
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
class MinimalPairs:
    """Prompts that differ in a negator, and the MLP whose input may be edited as they are read."""

    model: BilinearTransformer
    hook: str  # name of the input of the MLP
    tokens: Tensor  # (prompts, length); plain and negated in turns, padded at the end
    last: Tensor  # (prompts,), position of the last token of each
    polarity: Tensor  # ±1, of the sentiment words
    positive: Tensor  # token ids of the positive words that may follow
    negative: Tensor

    def odds(self, edit: Edit | None = None) -> Tensor:
        """Return log odds of positive against negative next words, (prompts,)."""
        logits = self.logits(self.tokens, edit)
        logits = logits[torch.arange(len(logits)), self.last].double()
        return logits[:, self.positive].logsumexp(1) - logits[:, self.negative].logsumexp(1)

    def loss(self, blocks: Tensor, kept: Tensor, edit: Edit | None = None) -> float:
        """Return the loss in nats a token on text; `kept` (texts, length − 1) says of which."""
        losses = functional.cross_entropy(
            self.logits(blocks, edit)[:, :-1].flatten(0, 1),
            blocks[:, 1:].flatten(),
            reduction="none",
        )
        return float(losses.double()[kept.flatten()].mean())

    def logits(self, tokens: Tensor, edit: Edit | None) -> Tensor:
        """Run the model on tokens while the MLP reads its input as an edit makes it."""
        replace = None if edit is None else {self.hook: edit}
        with torch.no_grad():
            return self.model.run(tokens, replace=replace)[0]


def pad_texts(texts: Sequence[str], tokenizer: Tokenizer) -> tuple[Tensor, Tensor]:
    """Return texts as tokens, each behind the end of a text, and the last position of each."""
    end = tokenizer.end_of_text
    ids = [[end, *tokenizer.encode(text)] for text in texts]
    length = max(map(len, ids))
    rows = torch.tensor([each + [end] * (length - len(each)) for each in ids])
    return rows, torch.tensor([len(each) - 1 for each in ids])


class NegationPrompts(MinimalPairs):
    """Minimal pairs of the story grammar; `polarity` is (pairs,)."""

    @classmethod
    def for_model(
        cls, model: BilinearTransformer, hook: str, tokenizer: Tokenizer, num: int, seed: int
    ) -> NegationPrompts:
        prompts = StoryGrammar().minimal_pairs(num, seed)
        return cls(
            model,
            hook,
            *pad_texts([prompt.prompt for prompt in prompts], tokenizer),
            torch.tensor([prompt.polarity for prompt in prompts[::2]]),
            word_tokens(tokenizer, FEELINGS[1]),
            word_tokens(tokenizer, FEELINGS[-1]),
        )

    @property
    def feelings(self) -> Tensor:
        """(2 · pairs,), ±1, the feeling that the rule asks for."""
        return torch.stack([self.polarity, -self.polarity], dim=1).flatten()

    def margins(self, edit: Edit | None = None) -> tuple[Tensor, Tensor]:
        """Return polarity · odds of positive feelings, plain and negated, (pairs,) each."""
        odds = self.odds(edit)
        return self.polarity * odds[::2], self.polarity * odds[1::2]

    def flip(self, edit: Edit | None = None) -> Tensor:
        """Return plain − negated margin of each pair, (pairs,): what the negator turns around."""
        plain, negated = self.margins(edit)
        return plain - negated

    def inputs(self) -> Tensor:
        """Return the inputs of the MLP at the last token of each prompt, (2 · pairs, d_model)."""
        with torch.no_grad():
            found = self.model.activations(self.tokens, (self.hook,))[self.hook]
        return found[torch.arange(len(found)), self.last]

    def loss_elsewhere(self, blocks: Tensor, edit: Edit | None = None) -> float:
        """Return the loss in nats a token on text, words of feeling left out."""
        feeling = torch.isin(blocks[:, 1:], torch.cat([self.positive, self.negative]))
        return self.loss(blocks, ~feeling, edit)


def word_tokens(tokenizer: Tokenizer, words: Sequence[str]) -> Tensor:
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


@dataclass(frozen=True, eq=False)
class TruthWords:
    """Words as tokens of one tokenizer; those of several tokens are left out, negators end one."""

    negators: Tensor
    positive: Tensor
    negative: Tensor
    stops: Tensor

    @classmethod
    def for_tokenizer(cls, tokenizer: Tokenizer) -> TruthWords:

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
            reach = functional.pad(reach[:, :-1], (1, 0), value=False) & ~stop
            found |= reach
        return found

    def sentiment(self, blocks: Tensor) -> Tensor:
        return torch.isin(blocks, torch.cat([self.positive, self.negative]))


class NegationPairs(MinimalPairs):
    """Minimal pairs of running text: frames · words · contexts; `polarity` is (words,)."""

    @classmethod
    def for_model(
        cls,
        model: BilinearTransformer,
        hook: str,
        tokenizer: Tokenizer,
        words: TruthWords,
        openers: Sequence[str] = OPENERS,
    ) -> NegationPairs:
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
        return cls(
            model,
            hook,
            *pad_texts(texts, tokenizer),
            torch.tensor([polarity for polarity in WORDS for _ in WORDS[polarity]]),
            words.positive,
            words.negative,
        )

    def leaning(self, edit: Edit | None = None) -> Tensor:
        """Return `odds` averaged over contexts, (frames, words, 2): plain before negated."""
        return self.odds(edit).view(len(FRAMES), len(self.polarity), -1, 2).mean(dim=2)

    def flip(self, edit: Edit | None = None) -> Tensor:
        """Return how far a negator turns each word around, (frames, words), in logits."""
        return self.polarity * self.shift(edit)

    def shift(self, edit: Edit | None = None) -> Tensor:
        """Return how far a negator moves everything to the negative, (frames, words), in logits."""
        leaning = self.leaning(edit)
        return leaning[..., 0] - leaning[..., 1]

    def negator_ablated(self) -> Edit:
        """Return an edit by which the MLP reads, behind a negator, what it reads without one."""
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

    def loss_elsewhere(self, blocks: Tensor, negated: Tensor, edit: Edit | None) -> float:
        """Return the loss in nats a token at tokens that no negator stands before."""
        return self.loss(blocks, ~negated[:, :-1], edit)


def over_words(values: Tensor, generator: torch.Generator) -> Record:
    """Return the mean over words, with a 95 % interval of resampled words."""
    half = len(values) // 2
    picks = torch.randint(half, (NUM_RESAMPLES, 2, half), generator=generator)
    parts = torch.stack([values[:half], values[half:]])
    draws = torch.stack([parts[side][picks[:, side]].mean(dim=1) for side in range(2)])
    return to_json(interval(values.mean(), draws.mean(dim=0)))
