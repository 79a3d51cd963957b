"""What is traced: a layer of a language model, the autoencoders around it, and text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count
from bilens.base.errors import DataError, UsageError
from bilens.data.token_blocks import pack_documents
from bilens.data.tokenizer import Tokenizer
from bilens.io.load import LoadedModel, load
from bilens.io.sae_for_hook import sae_for_hook
from bilens.nn.tokens import check_tokens
from bilens.nn.topk_sae import TopKSAE
from bilens.nn.transformer import BilinearTransformer
from bilens.train.language.belongings import language_model, text_of, tokenizer_of
from bilens.train.language.corpus import CorpusOptions

SHORTEST = 3  # tokens of a text: the first is left out, and the second predicts the third


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """A layer of a language model, with the tokenizer of the model.

    Attributes:
        loaded: the model.
        module: the same, as a module.
        tokenizer: of the model.
        index: the block.
        f: what the MLP of the block computes, exact, in float64.
    """

    loaded: LoadedModel
    module: BilinearTransformer
    tokenizer: Tokenizer
    index: int
    f: QuadraticMap

    def hook(self, point: str) -> str:
        """Return the name of a hook point of the block."""
        return f"blocks.{self.index}.{point}"


@dataclass(frozen=True, eq=False)
class TracedSAE:
    """An autoencoder beside the layer.

    Attributes:
        loaded: as it was read.
        sae: the same function in the units of the layer, in float64.
        hook: where it stands.
    """

    loaded: LoadedModel
    sae: TopKSAE
    hook: str


@dataclass(frozen=True, eq=False)
class TracedText:
    """Text that the layer reads.

    Attributes:
        blocks: (num, length) tokens.
        name: of the corpus.
        source: where it came from, in words.
        sha256: of the documents; empty for tokens that a caller passed.
    """

    blocks: Tensor
    name: str
    source: str
    sha256: str


def open_layer(
    model: str | Path | LoadedModel, layer: int, tokenizer: Tokenizer | None = None
) -> TracedLayer:
    """Return a layer of the language model in a folder.

    Raises:
        CheckpointError: If the folder is missing or damaged.
        DataError: If the tokenizer is missing or damaged.
        UsageError: If the model is no language model, has no such block, or the tokenizer does
            not fit it.
        NotQuadraticError: If the MLP is gated or an ordinary one.
    """
    loaded = model if isinstance(model, LoadedModel) else load(model)
    module = language_model(loaded, "a trace")
    f = module.layer_map(layer).detach().to(torch.float64)
    return TracedLayer(loaded, module, tokenizer_of(loaded, module, tokenizer), int(layer), f)


def open_sae(given: str | Path | LoadedModel, layer: TracedLayer, point: str) -> TracedSAE:
    """Return the autoencoder of a hook point of the layer, in the units of the layer.

    Raises:
        CheckpointError: If the folder is missing or damaged.
        UsageError: If it is no autoencoder, or one of another width, hook point or model.
    """
    loaded = given if isinstance(given, LoadedModel) else load(given)
    hook = layer.hook(point)
    return TracedSAE(loaded, sae_for_hook(loaded, layer.loaded, hook).double().eval(), hook)


def held_out_text(
    layer: TracedLayer,
    corpus: str | Path | CorpusOptions | Tensor | None,
    tokens: int,
    report: Callable[[str], None],
) -> TracedText:
    """Return held-out text as whole blocks of the model's context.

    Args:
        layer: of the model that reads it.
        corpus: what `load_text` reads, tokens (num, length), or None for the model's own corpus.
        tokens: how many at most, rounded down to whole blocks; one block at least.
        report: told what was read.

    Raises:
        UsageError: If the model does not say what it was trained on, or tokens do not fit it.
        DataError: If the corpus is missing, not what it was, or shorter than one block.
        CheckpointError: If the description of the corpus is damaged.
    """
    tokens, config = check_count("tokens", tokens, minimum=1), layer.module.config
    if isinstance(corpus, Tensor):
        _, length = check_tokens(corpus, None, config.vocab_size, config.n_ctx)
        if length < SHORTEST:
            raise UsageError(
                f"corpus holds texts of {length} tokens; at least {SHORTEST} were expected: the "
                "first is left out, and the second predicts the third."
            )
        blocks = corpus.cpu()[: max(tokens // length, 1)]
        return TracedText(blocks, "", "tokens passed by the caller", "")
    options = CorpusOptions(str(corpus)) if isinstance(corpus, str | Path) else corpus
    text = text_of(layer.loaded, options, report)
    try:
        blocks = pack_documents(layer.tokenizer, text.held_out, config.n_ctx).tokens
    except DataError as error:
        raise DataError(f"the held-out part of {text.name} is too short: {error}") from None
    blocks = blocks[: max(tokens // config.n_ctx, 1)]
    return TracedText(blocks, text.name, text.source, text.fingerprint)
