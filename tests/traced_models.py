"""A tiny language model with random weights and random autoencoders, as folders for a trace."""

from pathlib import Path

import torch

import bilens as bl
from bilens.data.tokenizer import train_tokenizer
from bilens.nn import BilinearTransformer, ThresholdSAE, TopKSAE
from bilens.nn.mlp import Gate
from bilens.train.corpus import CorpusDescription, CorpusOptions

WIDTH, LATENTS, K, N_CTX = 8, 12, 3, 16
CORPUS = CorpusOptions("grammar", limit=150, held_out=0.4)


def write_model(folder: Path, gate: Gate | None = None, n_layer: int = 1) -> Path:
    """A model folder with tokenizer.json and corpus.json."""
    corpus = CORPUS.load()
    tokenizer = train_tokenizer(corpus.documents, None, "word")
    model = BilinearTransformer(tokenizer.vocab_size, WIDTH, 16, n_layer, 2, N_CTX, gate)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            draw = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(draw / parameter.shape[-1] ** 0.5)
    bl.save(model, folder)
    tokenizer.save(folder / "tokenizer.json")
    CorpusDescription.describe(CORPUS, corpus).write(folder)
    return folder


def write_sae(folder: Path, point: str, width: int = WIDTH, **said: str) -> Path:
    """The folder of an autoencoder with random directions, and another scale than the layer's."""
    sae = TopKSAE(width, LATENTS, K)
    generator = torch.Generator().manual_seed(len(point))
    with torch.no_grad():
        for parameter in (sae.encoder, sae.decoder, sae.encoder_bias, sae.decoder_bias):
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        sae.normalise_decoder()
        sae.scale.fill_(1.5)
    return bl.save(sae, folder, provenance={"hook": f"blocks.0.{point}", **said})


def write_all(folder: Path) -> tuple[Path, Path, Path]:
    """Model and both autoencoders."""
    return (
        write_model(folder / "model"),
        write_sae(folder / "sae_in", "mlp_in"),
        write_sae(folder / "sae_out", "mlp_out"),
    )


def write_threshold(folder: Path, point: str, skip: bool = False, **said: str) -> Path:
    """The folder of an autoencoder with thresholds, or, at "mlp", of a transcoder of the MLP."""
    transcodes = point == "mlp"
    sae = ThresholdSAE(WIDTH, LATENTS, d_out=WIDTH if transcodes else None, skip=skip)
    generator = torch.Generator().manual_seed(len(point))
    with torch.no_grad():
        for parameter in sae.parameters():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) / 3)
        sae.threshold.copy_(torch.rand(LATENTS, generator=generator) / 3)
        sae.scale.fill_(1.5)
    about = {"hook": f"blocks.0.{point}"}
    if transcodes:
        about = {"hook": "blocks.0.mlp_in", "hook_out": "blocks.0.mlp_out"}
    return bl.save(sae, folder, provenance={**about, **said})
