"""The corpus as tokens: batches to train on, and what the held-out loss is measured on."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.base.errors import UsageError
from bilens.data.text import TextCorpus
from bilens.data.token_blocks import pack_documents
from bilens.data.tokenizer import Tokenizer, train_tokenizer
from bilens.train.language.recipe import LanguageRecipe
from bilens.train.randomness import ORDER, stream

HELD_OUT_TOKENS = 1 << 20  # that the held-out loss is measured on, at most


@dataclass(frozen=True, eq=False)
class CorpusTokens:
    """What a language model is trained and judged on.

    Attributes:
        train: tokens of the training documents, joined, (num_tokens,).
        held_out: tokens of the held-out documents, likewise.
        bytes_per_token: UTF-8 bytes of the held-out documents over their tokens.
        characters_per_token: characters of the held-out documents over their tokens.
        fingerprint: SHA-256 of corpus and tokenizer.
    """

    train: Tensor
    held_out: Tensor
    bytes_per_token: float
    characters_per_token: float
    fingerprint: str

    def bits_per_byte(self, nats_per_token: float) -> float:
        """Return a held-out loss in a unit in which tokenizers compare."""
        return nats_per_token / math.log(2) / self.bytes_per_token

    def bits_per_character(self, nats_per_token: float) -> float:
        """Return a held-out loss in bits per character."""
        return nats_per_token / math.log(2) / self.characters_per_token


def tokenizer_of(corpus: TextCorpus, recipe: LanguageRecipe) -> Tokenizer:
    """Return the tokenizer of a recipe, trained on the training documents.

    Raises:
        DataError: If the documents support fewer tokens.
    """
    return train_tokenizer(corpus.documents, recipe.vocab_size, recipe.tokenizer)


def tokens_of(corpus: TextCorpus, tokenizer: Tokenizer, n_ctx: int) -> CorpusTokens:
    """Return a corpus as tokens, each document followed by the end of text.

    Raises:
        DataError: If one of the two parts is shorter than a text of `n_ctx` and one token more.
    """
    train, held_out = (
        pack_documents(tokenizer, documents, n_ctx + 1)
        for documents in (corpus.documents, corpus.held_out)
    )
    text = "".join(corpus.held_out)
    both = f"{corpus.fingerprint} {tokenizer.sha256}"
    return CorpusTokens(
        train=train.tokens.flatten(),
        held_out=held_out.tokens.flatten()[:HELD_OUT_TOKENS],
        bytes_per_token=len(text.encode()) / held_out.num_tokens,
        characters_per_token=len(text) / held_out.num_tokens,
        fingerprint=hashlib.sha256(both.encode()).hexdigest(),
    )


def windows(tokens: Tensor, n_ctx: int, offset: int = 0) -> Tensor:
    """Return all texts of n_ctx + 1 tokens from an offset, (texts, n_ctx + 1), without a copy.

    Each begins with the last token of the one before: every token behind the first is predicted
    once.
    """
    return tokens[offset:].unfold(0, n_ctx + 1, n_ctx)


class Batches:
    """The batches of a run: each is a function of the seed and of its number alone.

    The texts of a pass begin at a random token, so that each pass cuts the documents elsewhere.

    Raises:
        UsageError: If there is not one whole batch.
    """

    def __init__(self, tokens: Tensor, recipe: LanguageRecipe) -> None:
        self.tokens, self.recipe = tokens, recipe
        texts = (len(tokens) - 1) // recipe.n_ctx - 1  # fewer by one than at offset 0
        self.steps_per_pass = texts // recipe.batch_size
        if self.steps_per_pass == 0:
            raise UsageError(
                f"batch_size is {recipe.batch_size} and n_ctx {recipe.n_ctx}, but the corpus has "
                f"{len(tokens):,} tokens to train on, which is less than one batch: choose a "
                "smaller batch size or context, or pass more text."
            )
        self.pass_index = -1
        self.texts, self.order = tokens, tokens

    @property
    def total_steps(self) -> int:
        """Steps of the whole run."""
        if self.recipe.steps is not None:
            return self.recipe.steps
        return max(1, round(self.recipe.epochs * self.steps_per_pass))

    def batch(self, number: int) -> Tensor:
        """Return the texts of a step, (batch_size, n_ctx + 1)."""
        index, place = divmod(number, self.steps_per_pass)
        if index != self.pass_index:
            generator = stream(self.recipe.seed, ORDER, index)
            offset = int(torch.randint(self.recipe.n_ctx, (1,), generator=generator))
            self.texts = windows(self.tokens, self.recipe.n_ctx, offset)
            self.order = torch.randperm(len(self.texts), generator=generator)
            self.pass_index = index
        size = self.recipe.batch_size
        return self.texts[self.order[place * size : (place + 1) * size]]
