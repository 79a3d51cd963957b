"""The layer that is traced, the autoencoders around it, their text, and tokens of latents."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_count, check_float_tensor
from bilens.base.errors import DataError, ShapeError, UsageError
from bilens.base.files import check_path
from bilens.base.memory import check_memory
from bilens.data.tokenizer import Tokenizer, load_tokenizer, pack_documents
from bilens.interp.layer_trace import latent_map
from bilens.interp.random_dictionaries import RandomDictionary, random_dictionary
from bilens.interp.trace_options import TraceOptions
from bilens.io.autoencoders import sae_for_hook
from bilens.io.load import LoadedModel, load
from bilens.io.vocabulary import Vocabulary
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.nn.tokens import check_tokens
from bilens.nn.transformer import BilinearTransformer
from bilens.records.mlp_trace import ActiveContext, LatentReading, TokenEnds
from bilens.train.activations import activations_of
from bilens.train.corpus import CorpusOptions, language_model, text_of, tokenizer_of
from bilens.train.randomness import drawn_rows

CONTEXTS = 6  # of each latent
BEFORE, AFTER = 20, 5  # tokens around one where a latent is active
SHORTEST = 3  # tokens of a text: the first is left out, and the second predicts the third
DIGITS = 6  # significant, of what is one of many numbers in a list


@dataclass(frozen=True, eq=False)
class TracedLayer:
    """A layer of a language model, with the tokenizer of the model."""

    loaded: LoadedModel
    module: BilinearTransformer
    tokenizer: Tokenizer
    index: int
    f: QuadraticMap  # what the MLP of the block computes, exact, in float64

    def hook(self, point: str) -> str:
        return f"blocks.{self.index}.{point}"

    @cached_property
    def vocabulary(self) -> Vocabulary:
        return Vocabulary.of_ours(self.module, self.tokenizer.token)


@dataclass(frozen=True, eq=False)
class LoadedSAE:
    loaded: LoadedModel
    sae: SparseAutoencoder  # the same function in the units of the layer, in float64
    hook: str
    reads: str | None = None  # the hook point that a transcoder reads, which writes what is at hook

    @property
    def stored(self) -> SparseAutoencoder:
        """The autoencoder as it was read, in units of its own; where the layer is."""
        assert isinstance(self.loaded.module, SparseAutoencoder), "checked by `sae_for_hook`"
        return copy.deepcopy(self.loaded.module).to(self.sae.decoder.device)


@dataclass(frozen=True, eq=False)
class TracedText:
    blocks: Tensor  # (num, length) tokens
    name: str
    source: str
    sha256: str  # of the documents; empty for tokens that a caller passed


def open_layer(
    model: str | Path | LoadedModel, layer: int, tokenizer: Tokenizer | str | Path | None = None
) -> TracedLayer:
    """Open a language model to trace one of its layers, with its tokenizer."""
    if tokenizer is not None and not isinstance(tokenizer, Tokenizer):
        tokenizer = load_tokenizer(check_path("tokenizer", tokenizer))
    loaded = model if isinstance(model, LoadedModel) else load(model)
    module = language_model(loaded, "a trace")
    f = module.layer_map(layer).detach().to(torch.float64)
    return TracedLayer(loaded, module, tokenizer_of(loaded, module, tokenizer), int(layer), f)


def open_sae(given: str | Path | LoadedModel, layer: TracedLayer, point: str) -> LoadedSAE:
    """Return the autoencoder of a point of the layer, or of a named hook, in the model's units.

    Where the MLP writes, it may be a transcoder that reads what the MLP reads.
    """
    loaded = given if isinstance(given, LoadedModel) else load(given)
    hook = point if "." in point else layer.hook(point)
    reads = layer.hook("mlp_in") if point == "mlp_out" else None
    found = sae_for_hook(loaded, layer.loaded, hook, reads)
    sae = found.double().eval().to(layer.f.device)
    return LoadedSAE(loaded, sae, hook, reads if sae.is_transcoder else None)


def held_out_text(
    layer: TracedLayer,
    corpus: str | Path | CorpusOptions | Tensor | None,
    tokens: int,
    report: Callable[[str], None],
    seed: int = 0,
) -> TracedText:
    """Return held-out text as whole blocks of the model's context, drawn where there are more."""
    tokens, config = check_count("tokens", tokens, minimum=1), layer.module.config
    if isinstance(corpus, Tensor):
        _, length = check_tokens(corpus, None, config.vocab_size, config.n_ctx)
        if length < SHORTEST:
            raise UsageError(
                f"corpus holds texts of {length} tokens; at least {SHORTEST} were expected: the "
                "first is left out, and the second predicts the third."
            )
        blocks = corpus[drawn_rows(len(corpus), max(tokens // length, 1), seed)].to(layer.f.device)
        return TracedText(blocks, "", "tokens passed by the caller", "")
    options = CorpusOptions(str(corpus)) if isinstance(corpus, str | Path) else corpus
    text = text_of(layer.loaded, options, report)
    try:
        blocks = pack_documents(layer.tokenizer, text.held_out, config.n_ctx).tokens
    except DataError as error:
        raise DataError(f"the held-out part of {text.name} is too short: {error}") from None
    chosen = drawn_rows(len(blocks), max(tokens // config.n_ctx, 1), seed)
    blocks = blocks[chosen].to(layer.f.device)
    return TracedText(blocks, text.name, text.source, text.fingerprint)


@dataclass(frozen=True, eq=False)
class LatentReader:
    """The layer, its autoencoders and what they do on text."""

    layer: TracedLayer
    before: LoadedSAE
    behind: SparseAutoencoder | RandomDictionary
    text: TracedText
    inputs: Tensor  # (n, d_model) float64, what the MLP read, without each first token
    z: Tensor  # (n, input latents), their activations
    activations: Tensor  # (n, output latents), of what the MLP wrote
    options: TraceOptions

    @property
    def transcodes(self) -> bool:
        """Whether a transcoder stands behind the MLP."""
        return isinstance(self.behind, SparseAutoencoder) and self.behind.is_transcoder

    @property
    def read_directions(self) -> Tensor:
        """(output latents, d_model), along which the output of the MLP is read."""
        return self.behind.decoder if self.transcodes else self.behind.encoder

    @cached_property
    def g(self) -> QuadraticMap:
        """The pre-activations of the output latents; of a transcoder, what goes along each."""
        offset = self.behind.offset
        offset = torch.zeros_like(offset) if self.transcodes else offset
        return latent_map(self.layer.f, self.read_directions, offset)

    @cached_property
    def dictionary(self) -> Tensor:
        """(d_model, input latents)."""
        return self.before.sae.decoder.detach().T

    @property
    def bias(self) -> Tensor:
        """(d_model,), what the MLP reads where no input latent is active."""
        return self.before.sae.decoder_bias.detach()

    @property
    def generator(self) -> torch.Generator:
        """Draws random directions, the same ones each time."""
        return torch.Generator().manual_seed(self.options.seed)

    def turned(self, generator: torch.Generator) -> LatentReader:
        """Return the reader of a random dictionary in place of the one behind the MLP."""
        outputs, num_active = self.layer.f(self.inputs), (self.activations > 0).sum(dim=0)
        trained = self.read_directions, self.behind.decoder
        found = random_dictionary(*trained, outputs, num_active, generator)
        return replace(self, behind=found, activations=found.encode(outputs))

    def name(self, token: int) -> str:
        return self.layer.tokenizer.token(token)

    def contexts(self, latent: int, activations: Tensor) -> LatentReading:
        """Return where a latent is active; `activations` are `z` or `activations`."""
        blocks = self.text.blocks
        values = activations[:, latent].view(len(blocks), -1)
        return top_contexts(blocks[:, 1:], values, latent, self.name, num=CONTEXTS)


def read_text(
    layer: TracedLayer,
    before: LoadedSAE,
    behind: LoadedSAE,
    text: TracedText,
    options: TraceOptions,
) -> LatentReader:
    """Run model and autoencoders on text; the first token of each block is left out."""
    rows = text.blocks.numel() - len(text.blocks)
    latents = before.sae.num_latents + behind.sae.num_latents
    check_memory(
        8 * 2 * rows * (latents + 2 * layer.module.config.d_model),
        f"the activations of {latents} latents at {rows} tokens",
        "read fewer tokens",
        device=layer.f.device,
    )
    found = activations_of(layer.module, text.blocks, (before.hook, behind.hook))
    with torch.no_grad():
        inputs = found[before.hook].double()
        z = before.sae.encode(inputs)
        activations = behind.sae.encode(found[behind.reads or behind.hook].double())
    return LatentReader(layer, before, behind.sae, text, inputs, z, activations, options)


def short(value: float) -> float:
    """Return a number with few digits, so that long lists stay small."""
    return float(f"{value:.{DIGITS}g}")


def top_contexts(
    tokens: Tensor, activations: Tensor, latent: int, name: Callable[[int], str], *, num: int = 10
) -> LatentReading:
    """Return where a latent is most active, with the text around, each token by its name."""
    num = check_count("num", num, minimum=1)
    shape = check_float_tensor("activations", activations, num_axes=2)
    if tuple(tokens.shape) != shape or 0 in shape:
        raise ShapeError(
            f"tokens has shape {tuple(tokens.shape)} and activations {shape}; one activation for "
            "each token, (sequences, positions), was expected."
        )
    values = activations.detach().cpu()
    length = shape[1]
    taken = torch.zeros(shape, dtype=torch.bool)
    contexts: list[ActiveContext] = []
    for position in values.flatten().argsort(descending=True, stable=True).tolist():
        row, peak = divmod(position, length)
        if len(contexts) == num or float(values[row, peak]) <= 0:
            break
        start, stop = max(0, peak - BEFORE), min(length, peak + AFTER + 1)
        if bool(taken[row, start:stop].any()):
            continue
        taken[row, start:stop] = True
        seen, sizes = (part[row, start:stop].tolist() for part in (tokens, values))
        names, levels = tuple(map(name, seen)), tuple(map(short, sizes))
        contexts.append(ActiveContext(row, start, peak - start, names, levels))
    density = float((values > 0).double().mean())
    largest = short(float(values.max()))
    return LatentReading(latent, density, largest, tuple(contexts), TokenEnds((), ()))


@dataclass(frozen=True)
class ScoredToken:
    """One token id and its number, in the unit that the record around it says."""

    token: int
    value: float


@dataclass(frozen=True)
class TokensAtEnds:
    """The tokens at both ends of a direction: promoted and suppressed, or along and against it."""

    high: tuple[ScoredToken, ...]  # by falling value
    low: tuple[ScoredToken, ...]  # by rising value


def output_tokens(direction: Tensor, unembed: Tensor, num: int = 10) -> TokensAtEnds:
    """Return which tokens a direction of the residual stream promotes and suppresses.

    The final RMSNorm divides all logits by one positive number that depends on the text: order and
    sign of the effects are exact, their common size is for a stream of root mean square 1.
    """
    num = check_count("num", num, minimum=1)
    effects = check_pair("direction", direction, "unembed", unembed)
    effects = effects - effects.mean()
    return TokensAtEnds(strongest(effects, num), strongest(effects, num, lowest=True))


def eigenvector_tokens(
    eigenpairs: EigenDecomposition, embed: Tensor, num: int = 10
) -> tuple[TokensAtEnds, ...]:
    """Return the tokens whose embeddings lie along each eigenvector, without any SAE."""
    num = check_count("num", num, minimum=1)
    if eigenpairs.eigenvalues.ndim != 1:
        raise ShapeError("eigenvector_tokens works on one form: pass eigenpairs[c].")
    check_float_tensor("embed", embed, num_axes=2)
    centred = embed.detach().double()
    centred = centred - centred.mean(dim=0)
    lengths = torch.linalg.vector_norm(centred, dim=1, keepdim=True)
    units = centred / torch.where(lengths > 0, lengths, 1.0)
    readings = []
    for vector in eigenpairs.eigenvectors:
        cosines = check_pair("an eigenvector", vector, "embed", units)
        readings.append(TokensAtEnds(strongest(cosines, num), strongest(cosines, num, lowest=True)))
    return tuple(readings)


def check_pair(name: str, direction: Tensor, of: str, rows: Tensor) -> Tensor:
    """Return rows · direction in float64, (num rows,)."""
    check_float_tensor(of, rows, num_axes=2)
    check_shape(name, direction, rows.shape[1:])
    return rows.detach().double() @ direction.detach().to(rows.device).double()


def strongest(values: Tensor, num: int, lowest: bool = False) -> tuple[ScoredToken, ...]:
    """Return the largest values, or the most negative ones, with their positions."""
    found = values.topk(min(num, len(values)), largest=not lowest)
    return tuple(
        ScoredToken(token, value)
        for value, token in zip(found.values.tolist(), found.indices.tolist(), strict=True)
    )
