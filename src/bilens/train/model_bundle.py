"""A language model from a folder, with its tokenizer and its text: its bundle."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bilens.base.errors import UsageError
from bilens.data.text import TextCorpus
from bilens.data.tokenizer import Tokenizer, check_tokenizer_fits, load_tokenizer
from bilens.io.load import load
from bilens.io.loaded_model import LoadedModel
from bilens.nn.transformer import BilinearTransformer
from bilens.train.corpus import CorpusDescription, CorpusOptions
from bilens.train.run_files import CORPUS_NAME, TOKENIZER_NAME


@dataclass(frozen=True, eq=False)
class ModelBundle:
    """What a run folder of a language model holds; `corpus.load()` gives the documents again."""

    folder: Path
    model: BilinearTransformer  # on the CPU, in evaluation mode
    tokenizer: Tokenizer
    corpus: CorpusDescription


def open_model_bundle(folder: Path) -> ModelBundle:
    """Return the model of a run folder, its tokenizer, and the description of its corpus."""
    loaded = load(folder)
    model = language_model(loaded, "writing text")
    return ModelBundle(folder, model, tokenizer_of(loaded, model), CorpusDescription.read(folder))


def language_model(loaded: LoadedModel, purpose: str) -> BilinearTransformer:
    """Return the whole model; refuse what is no language model, or of which only MLPs were read."""
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
    """Return the tokenizer beside a model, or the one that was passed, if it fits the model."""
    trained_with = loaded.provenance.get("tokenizer_sha256")
    if tokenizer is None:
        tokenizer = load_tokenizer(Path(loaded.source) / TOKENIZER_NAME, trained_with)
    check_tokenizer_fits(tokenizer, module.config.vocab_size, trained_with)
    return tokenizer


def text_of(
    loaded: LoadedModel, corpus: CorpusOptions | None, report: Callable[[str], None]
) -> TextCorpus:
    """Return a corpus, or the one that a model was trained on where none is given."""
    if corpus is not None:
        return corpus.load(report)
    folder = Path(loaded.source)
    if not (folder / CORPUS_NAME).exists():
        raise UsageError(
            f"{folder} does not say which text the model was trained on: give one with --corpus."
        )
    return CorpusDescription.read(folder).load(report=report)
