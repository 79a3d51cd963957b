"""The text a language model learns from, its batches, and a run folder read with its text."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, DataError, UsageError
from bilens.base.files import read_json, write_file
from bilens.data.text import GIVEN, GRAMMAR, TextCorpus, load_text
from bilens.data.tokenizer import Tokenizer, check_tokenizer_fits, load_tokenizer, pack_documents
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel
from bilens.nn.module_layers import Transformer
from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.transformer import BilinearTransformer
from bilens.train.randomness import ORDER, drawn_rows, stream
from bilens.train.run_folder import CORPUS_NAME, TOKENIZER_NAME

HELD_OUT_TOKENS = 1 << 20  # that the held-out loss is measured on, at most; drawn with the seed 0


@dataclass(frozen=True)
class CorpusOptions:
    """The arguments of `load_text`."""

    corpus: str | tuple[str, ...]  # a path or name, or the texts themselves
    column: str | None = None
    split: str = "train"
    held_out: float = 0.05
    limit: int | None = None
    seed: int = 0
    stream: bool = False

    def load(self, report: Callable[[str], None] | None = None) -> TextCorpus:
        return load_text(report=report, **dataclasses.asdict(self))


@dataclass(frozen=True)
class CorpusDescription:
    """The content of `corpus.json` in a run folder: the corpus, and how to load it again."""

    options: CorpusOptions  # a path is absolute
    name: str
    source: str  # where the documents came from, one sentence
    fingerprint: str  # SHA-256 of the documents of both parts
    num_documents: int  # to train on
    num_held_out: int

    @classmethod
    def describe(cls, options: CorpusOptions, corpus: TextCorpus) -> CorpusDescription:
        given = options.corpus if isinstance(options.corpus, str) else GIVEN
        if given not in (GRAMMAR, GIVEN) and Path(given).exists():
            given = str(Path(given).resolve())
        options = dataclasses.replace(options, corpus=given)
        counts = len(corpus.documents), len(corpus.held_out)
        return cls(options, corpus.name, corpus.source, corpus.fingerprint, *counts)

    def load(
        self, corpus: str | None = None, report: Callable[[str], None] | None = None
    ) -> TextCorpus:
        """Return the same documents, split as they were; `corpus` is where they are now."""
        options = self.options
        if corpus is not None:
            options = dataclasses.replace(options, corpus=corpus)
        found = options.load(report)
        if found.fingerprint != self.fingerprint:
            raise DataError(
                f"{options.corpus} holds other documents than the model was trained on (the "
                "SHA-256 differs): say with --corpus where those are."
            )
        return found

    def write(self, folder: Path) -> None:
        text = json.dumps(dataclasses.asdict(self), indent=2, ensure_ascii=False)
        write_file(folder / CORPUS_NAME, text.encode())

    @classmethod
    def read_from(cls, folder: Path) -> CorpusDescription:
        path = folder / CORPUS_NAME
        content: dict[str, Any] = read_json(path)
        try:
            return cls(**{**content, "options": CorpusOptions(**content["options"])})
        except (KeyError, TypeError) as error:
            raise CheckpointError(
                f"{path}: is not the description of a corpus ({error}): restore the file."
            ) from None


@dataclass(frozen=True, eq=False)
class CorpusTokens:
    """The tokens that a language model is trained and judged on."""

    train: Tensor  # tokens of the documents, joined, (num_tokens,)
    held_out: Tensor
    bytes_per_token: float  # of the held-out documents, in UTF-8
    characters_per_token: float
    fingerprint: str  # SHA-256 of corpus and tokenizer

    def bits_per_byte(self, nats_per_token: float) -> float:
        """Return a held-out loss in a unit in which tokenizers compare."""
        return nats_per_token / math.log(2) / self.bytes_per_token

    def bits_per_character(self, nats_per_token: float) -> float:
        return nats_per_token / math.log(2) / self.characters_per_token


def tokens_of(corpus: TextCorpus, tokenizer: Tokenizer, n_ctx: int) -> CorpusTokens:
    """Return a corpus as tokens, each document followed by the end of text."""
    train, held_out = (
        pack_documents(tokenizer, documents, n_ctx + 1)
        for documents in (corpus.documents, corpus.held_out)
    )
    text = "".join(corpus.held_out)
    both = f"{corpus.fingerprint} {tokenizer.sha256}"
    return CorpusTokens(
        train=train.tokens.flatten(),
        held_out=held_out.tokens.flatten(),
        bytes_per_token=len(text.encode()) / held_out.num_tokens,
        characters_per_token=len(text) / held_out.num_tokens,
        fingerprint=hashlib.sha256(both.encode()).hexdigest(),
    )


def windows(tokens: Tensor, n_ctx: int, offset: int = 0) -> Tensor:
    """Return all texts of n_ctx + 1 tokens, each from the last token of the one before; no copy."""
    return tokens[offset:].unfold(0, n_ctx + 1, n_ctx)


def measured_texts(tokens: Tensor, n_ctx: int) -> Tensor:
    """Return the texts of n_ctx + 1 tokens that a held-out loss is measured on."""
    texts = windows(tokens, n_ctx)
    return texts[drawn_rows(len(texts), max(1, HELD_OUT_TOKENS // n_ctx))]


class Batches:
    """The batches of a run; each pass begins at a random token and cuts the documents elsewhere."""

    def __init__(self, tokens: Tensor, n_ctx: int, batch_size: int, seed: int) -> None:
        self.tokens, self.n_ctx, self.batch_size, self.seed = tokens, n_ctx, batch_size, seed
        texts = (len(tokens) - 1) // n_ctx - 1  # fewer by one than at offset 0
        self.steps_per_pass = texts // batch_size
        if self.steps_per_pass == 0:
            raise UsageError(
                f"batch_size is {batch_size} and n_ctx {n_ctx}, but the corpus has "
                f"{len(tokens):,} tokens to train on, which is less than one batch: choose a "
                "smaller batch size or context, or pass more text."
            )
        self.pass_index = -1
        self.texts, self.order = tokens, tokens

    def total_steps(self, epochs: float, steps: int | None) -> int:
        return max(1, round(epochs * self.steps_per_pass)) if steps is None else steps

    def batch(self, number: int) -> Tensor:
        """Return the texts of a step, (batch_size, n_ctx + 1)."""
        index, position = divmod(number, self.steps_per_pass)
        if index != self.pass_index:
            generator = stream(self.seed, ORDER, index)
            offset = int(torch.randint(self.n_ctx, (1,), generator=generator))
            self.texts = windows(self.tokens, self.n_ctx, offset)
            self.order = torch.randperm(len(self.texts), generator=generator)
            self.pass_index = index
        chosen = self.order[position * self.batch_size :][: self.batch_size]
        return self.texts[chosen]


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """The run folder of a language model; `corpus.load()` gives the documents again."""

    folder: Path
    model: Transformer  # on the CPU, in evaluation mode
    tokenizer: Tokenizer
    corpus: CorpusDescription


def open_model_bundle(folder: Path) -> ModelBundle:
    """Return the model of a run folder, its tokenizer, and the description of its corpus."""
    loaded = load(folder)
    model = transformer(loaded, "writing text")
    tokenizer, corpus = tokenizer_of(loaded, model), CorpusDescription.read_from(folder)
    return ModelBundle(folder, model, tokenizer, corpus)


def transformer(loaded: LoadedModel, purpose: str) -> Transformer:
    """Return the whole model; refuse what is no language model, or of which only MLPs were read."""
    module = loaded.module_for(purpose)
    if not isinstance(module, Transformer):
        raise UsageError(
            f"{loaded.source} holds a {type(module).__name__}; expected a language model, for "
            "example one that `bilens train language` wrote."
        )
    return module


def language_model(loaded: LoadedModel, purpose: str) -> BilinearTransformer:
    """Return a model with softmax and norms; refuse a polynomial one, too."""
    module = transformer(loaded, purpose)
    if isinstance(module, PolynomialTransformer):
        raise UsageError(
            f"{loaded.source} holds a PolynomialTransformer, and {purpose} is of a language model "
            "with softmax and norms: read the polynomial one with bl.polynomial_network."
        )
    return module


def tokenizer_of(
    loaded: LoadedModel, module: Transformer, tokenizer: Tokenizer | None = None
) -> Tokenizer:
    """Return the tokenizer beside a model, or the one that was passed, if it fits the model."""
    trained_with = loaded.provenance.get("tokenizer_sha256")
    if tokenizer is None:
        tokenizer = load_tokenizer(loaded.place / TOKENIZER_NAME, trained_with)
    check_tokenizer_fits(tokenizer, module.config.vocab_size, trained_with)
    return tokenizer


def text_of(
    loaded: LoadedModel, corpus: CorpusOptions | None, report: Callable[[str], None]
) -> TextCorpus:
    """Return a corpus, or the one that a model was trained on where none is given."""
    if corpus is not None:
        return corpus.load(report)
    folder = loaded.place
    if not (folder / CORPUS_NAME).exists():
        raise UsageError(
            f"{folder} does not say which text the model was trained on: give one with --corpus."
        )
    return CorpusDescription.read_from(folder).load(report=report)
