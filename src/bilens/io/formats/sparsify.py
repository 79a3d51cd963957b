"""EleutherAI's sparsify: `cfg.json` beside `sae.safetensors`, a folder a hook point."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor
from torch.nn import functional

from bilens.base.errors import UsageError
from bilens.base.files import read_json
from bilens.io.formats.foreign_sae import (
    Roles,
    build_sae,
    check_keys,
    check_sizes,
    check_values,
    count_in,
    kept,
    load_sae,
    sae_files,
)
from bilens.io.formats.format import Format, ReadOptions
from bilens.io.loaded_model import LoadedModel
from bilens.io.tensors import check_names, read_safetensors
from bilens.nn.topk_sae import TopKSAE

CONFIG_NAME, WEIGHTS_NAME = "cfg.json", "sae.safetensors"
TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
KNOWN = (
    *("activation", "expansion_factor", "normalize_decoder", "num_latents", "multi_topk"),
    *("skip_connection", "transcode", "signed"),
)
UNDERSTOOD = {
    "activation": ("topk", None),
    "skip_connection": (False, None),  # adds x W_skip to the reconstruction
    "transcode": (False, None),  # encodes another activation than it reconstructs
    "signed": (False, None),  # chooses by absolute value
}


def read_sparsify(folder: Path, options: ReadOptions) -> LoadedModel:
    path, weights = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    content = read_json(path)
    check_keys(path, content, ("d_in", "k"), KNOWN)
    check_values(path, content, UNDERSTOOD)
    d_in, k = count_in(path, content, "d_in"), count_in(path, content, "k")
    num_latents = content.get("num_latents", 0)
    if num_latents == 0:  # its way of saying that the factor decides
        num_latents = d_in * count_in(path, content, "expansion_factor")
    tensors, _ = read_safetensors(weights)
    check_names(weights, tensors, TENSORS)
    encoder, bias, decoder, shift = (tensors[name] for name in TENSORS)
    sae = build_sae(weights, Roles(encoder, bias, decoder, shift, k=k, sign="relu"))
    check_sizes(weights, sae, d_in, count_in(path, {"num_latents": num_latents}, "num_latents"))

    def original(x: Tensor) -> Tensor:
        pre = functional.linear(x - shift.double(), encoder.double(), bias.double()).relu()
        return kept(pre, k) @ decoder.double() + shift.double()

    return load_sae(folder, options, weights, sae, original, {"format": "sparsify"})


SPARSIFY = Format("sparsify", lambda path: (path / WEIGHTS_NAME).exists(), read_sparsify)


def sparsify_files(sae: TopKSAE) -> dict[str, bytes]:
    """Return the files of an autoencoder in the layout of sparsify, name → content."""
    if sae.sign != "relu":
        raise UsageError(
            'the autoencoder keeps negative activations (sign="raw"), and sparsify sets them to '
            "zero: it would be another function; use the official layout."
        )
    folded = sae.folded()
    content = {
        "activation": "topk",
        "expansion_factor": max(1, folded.num_latents // folded.d_in),
        "normalize_decoder": True,
        "num_latents": folded.num_latents,
        "k": folded.k,
        "multi_topk": False,
        "skip_connection": False,
        "transcode": False,
        "d_in": folded.d_in,
    }
    tensors = {
        "encoder.weight": folded.encoder.detach(),
        "encoder.bias": folded.encoder_bias.detach(),
        "W_dec": folded.decoder.detach(),
        "b_dec": folded.decoder_bias.detach(),
    }
    return sae_files(CONFIG_NAME, content, WEIGHTS_NAME, tensors)
