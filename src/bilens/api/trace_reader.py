"""A layer, the autoencoders around it, and what they do on text."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.trace_subject import TracedLayer, TracedSAE, TracedText
from bilens.api.trace_values import latent_values
from bilens.base.checks import check_count, check_memory
from bilens.base.errors import UsageError
from bilens.interp.contexts import top_contexts
from bilens.interp.latent_map import latent_map
from bilens.train.activations import activations_of

CONTEXTS = 6  # of each latent


@dataclass(frozen=True)
class LatentWishes:
    """What is to be drawn.

    Attributes:
        latents: output latents; None for the first of the ranking.
        outputs: how many of these.
        pairs: eigenpairs of each form.
        features: input latents of a circuit.
        top: interactions that are listed of each kind.
        seed: of random directions.
    """

    latents: tuple[int, ...] | None
    outputs: int
    pairs: int
    features: int
    top: int
    seed: int

    def __post_init__(self) -> None:
        for name in ("outputs", "pairs", "features", "top"):
            check_count(name, getattr(self, name), minimum=1)
        check_count("seed", self.seed, minimum=0)


@dataclass(frozen=True, eq=False)
class LatentReader:
    """The layer, its autoencoders and what they do on text.

    Attributes:
        layer: the layer.
        before: the autoencoder at mlp_in.
        behind: the autoencoder at mlp_out.
        text: the text that was read.
        inputs: (n, d_model) float64, what the MLP read, without each first token.
        z: (n, input latents), their activations.
        activations: (n, output latents), of what the MLP wrote.
        wishes: what is to be drawn.
    """

    layer: TracedLayer
    before: TracedSAE
    behind: TracedSAE
    text: TracedText
    inputs: Tensor
    z: Tensor
    activations: Tensor
    wishes: LatentWishes

    @cached_property
    def g(self) -> QuadraticMap:
        """The pre-activations of the output latents."""
        return latent_map(self.layer.f, self.behind.sae.encoder, self.behind.sae.offset)

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
        return torch.Generator().manual_seed(self.wishes.seed)

    def name(self, token: int) -> str:
        """Return a token as text."""
        return self.layer.tokenizer.token(token)

    def latent(self, number: int, activations: Tensor, tokens: dict[str, Any]) -> dict[str, Any]:
        """Return where a latent is active, and its tokens."""
        blocks = self.text.blocks
        values = activations[:, number].view(len(blocks), -1)
        contexts = top_contexts(blocks[:, 1:], values, number, num=CONTEXTS)
        return latent_values(contexts, tokens, self.name)


def read_text(
    layer: TracedLayer,
    before: TracedSAE,
    behind: TracedSAE,
    text: TracedText,
    wishes: LatentWishes,
) -> LatentReader:
    """Return what model and autoencoders do on text, without the first token of each block.

    Raises:
        MemoryLimitError: If the activations would not fit.
        NonFiniteError: If one is NaN or infinite.
    """
    rows = text.blocks.numel() - len(text.blocks)
    latents = before.sae.num_latents + behind.sae.num_latents
    check_memory(
        8 * 2 * rows * (latents + 2 * layer.module.config.d_model),
        f"the activations of {latents} latents at {rows} tokens",
        "read fewer tokens",
    )
    found = activations_of(layer.module, text.blocks, (before.hook, behind.hook))
    with torch.no_grad():
        inputs = found[before.hook].double()
        z = before.sae.encode(inputs)
        activations = behind.sae.encode(found[behind.hook].double())
    return LatentReader(layer, before, behind, text, inputs, z, activations, wishes)


def check_latents(latents: Sequence[int] | None, behind: TracedSAE) -> None:
    """Refuse output latents that do not exist, and a list of none."""
    if latents is not None and not latents:
        raise UsageError(
            "latents is empty: name one, or leave it out for the first of the ranking."
        )
    for latent in latents or ():
        if not 0 <= latent < behind.sae.num_latents:
            raise UsageError(
                f"latent {latent} does not exist: the autoencoder at {behind.hook} has "
                f"{behind.sae.num_latents}, counted from 0."
            )
