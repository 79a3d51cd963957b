"""A language model that was read, with what belongs to it: its tokenizer and its text."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from bilens.base.errors import UsageError
from bilens.data.text import TextCorpus
from bilens.data.tokenizer import Tokenizer, check_tokenizer_fits, load_tokenizer
from bilens.io.loaded_model import LoadedModel
from bilens.nn.transformer import BilinearTransformer
from bilens.train.language.corpus import CorpusDescription, CorpusOptions
from bilens.train.run_files import CORPUS_NAME, TOKENIZER_NAME


def language_model(loaded: LoadedModel, purpose: str) -> BilinearTransformer:
    """Return the whole model.

    Raises:
        UsageError: If it is no language model, or only its MLPs were read.
    """
    module = loaded.whole(purpose)
    if not isinstance(module, BilinearTransformer):
        raise UsageError(
            f"{loaded.source} holds a {type(module).__name__}; expected a language model, for "
            "example one that `bilens train language` wrote."
        )
    return module


def tokenizer_of(
    loaded: LoadedModel, module: BilinearTransformer, tokenizer: Tokenizer | None = None
) -> Tokenizer:
    """Return the tokenizer beside a model, or the one that was passed, if it fits the model.

    Raises:
        DataError: If it is missing or damaged.
        UsageError: If it does not fit.
    """
    if tokenizer is None:
        tokenizer = load_tokenizer(Path(loaded.source) / TOKENIZER_NAME)
    trained_with = loaded.provenance.get("tokenizer_sha256")
    check_tokenizer_fits(tokenizer, module.config.vocab_size, trained_with)
    return tokenizer


def text_of(
    loaded: LoadedModel, corpus: CorpusOptions | None, report: Callable[[str], None]
) -> TextCorpus:
    """Return a corpus, or the one that a model was trained on where none is given.

    Raises:
        UsageError: If none is given, and the model does not say what it was trained on.
        DataError: If the corpus is missing, or not what it was.
        CheckpointError: If the description of the corpus is damaged.
    """
    if corpus is not None:
        return corpus.load(report)
    folder = Path(loaded.source)
    if not (folder / CORPUS_NAME).exists():
        raise UsageError(
            f"{folder} does not say which text the model was trained on: give one with --corpus."
        )
    return CorpusDescription.read(folder).load(report=report)
