"""The autoencoders of the paper's official repository: `config.json` beside `model.safetensors`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.nn import functional

from bilens.base.errors import CheckpointError, UsageError
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
from bilens.io.formats.format import CONFIG_NAME, WEIGHTS_NAME, Format, ReadOptions, config_in
from bilens.io.loaded_model import LoadedModel
from bilens.io.tensors import check_names, read_safetensors
from bilens.nn.hooks import NAME, POINTS
from bilens.nn.topk_sae import TopKSAE

REQUIRED = ("point", "d_model", "expansion", "k")
KNOWN = (
    *("target", "normalize", "encoder_bias", "bilinear_encoder", "passthrough"),
    # of training, which decide nothing afterwards
    *("lr", "in_batch", "out_batch", "n_batches", "n_buffers", "n_ctx", "val_steps"),
    *("dead_thresh", "init_scale", "token_lookup", "decoder_decay", "normalize_decoder"),
    *("tag", "kwargs"),
)
UNDERSTOOD = {
    "bilinear_encoder": (False, None),
    "passthrough": (False, None),
    "normalize": (None,),  # kept in the file, and used by some versions of the code only
}


def is_official_sae(path: Path) -> bool:
    """Tell whether a `config.json` is that of an autoencoder of the official repository."""
    content = config_in(path)
    return "format" not in content and {*content} >= {*REQUIRED}


def read_official_sae(folder: Path, options: ReadOptions) -> LoadedModel:
    """Return the autoencoder of an official folder; it keeps negative activations."""
    path, weights = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    content = read_json(path)
    check_keys(path, content, REQUIRED, KNOWN)
    check_values(path, content, UNDERSTOOD)
    hook = hook_of(path, content["point"])
    if content.get("target") is not None and hook_of(path, content["target"]) != hook:
        raise CheckpointError(
            f"{path}: reads {hook} and reconstructs {hook_of(path, content['target'])}; an "
            "autoencoder reconstructs what it reads."
        )
    d_in, k = count_in(path, content, "d_model"), count_in(path, content, "k")
    tensors, _ = read_safetensors(weights)
    names = {"w_enc.weight", "w_dec.weight", "b_dec"}
    bias_name = "w_enc.bias"
    check_names(weights, tensors, names | {bias_name} if content.get("encoder_bias") else names)
    encoder = tensors["w_enc.weight"]
    if encoder.ndim != 2 or tensors["w_dec.weight"].ndim != 2:
        raise CheckpointError(f"{weights}: w_enc.weight and w_dec.weight must have two axes.")
    bias = tensors.get(bias_name, encoder.new_zeros(len(encoder)))
    decoder, shift = tensors["w_dec.weight"].T, tensors["b_dec"]
    sae = build_sae(weights, Roles(encoder, bias, decoder, shift, k=k, sign="raw"))
    check_sizes(weights, sae, d_in, d_in * count_in(path, content, "expansion"))

    def original(x: Tensor) -> Tensor:
        pre = functional.linear(x - shift.double(), encoder.double(), bias.double())
        return functional.linear(kept(pre, k), decoder.T.double(), shift.double())

    provenance = {"format": "SAE of the paper's official repository", "hook": hook}
    return load_sae(folder, options, weights, sae, original, provenance)


OFFICIAL_SAE = Format("the paper's autoencoder", is_official_sae, read_official_sae)


def hook_of(path: Path, point: object) -> str:
    """Return the hook point that ["mlp_out", 4] says."""
    if isinstance(point, list) and len(point) == 2:
        hook = f"blocks.{point[1]}.{point[0]}"
        if NAME.fullmatch(hook):
            return hook
    raise CheckpointError(
        f"{path}: the point is {point!r}; expected [name, layer] with one of the names "
        f"{', '.join(POINTS)}."
    )


def official_files(sae: TopKSAE, provenance: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of an autoencoder in the official layout, name → content."""
    hook = provenance.get("hook", "")
    match = NAME.fullmatch(hook)
    if sae.sign != "raw" or sae.num_latents % sae.d_in != 0 or match is None:
        raise UsageError(
            f'the official layout keeps negative activations (sign="raw", got {sae.sign!r}), has a '
            f"multiple of the width as its number of latents (got {sae.num_latents} for width "
            f"{sae.d_in}) and a hook point (got {hook or 'none'}): use another layout."
        )
    folded = sae.folded()
    biased = bool((folded.encoder_bias != 0).any())
    content = {
        "point": [match[2], int(match[1])],
        "target": None,
        "d_model": folded.d_in,
        "expansion": folded.num_latents // folded.d_in,
        "k": folded.k,
        "normalize": None,
        "encoder_bias": biased,
        "bilinear_encoder": False,
        "tag": None,
    }
    tensors = {
        "w_enc.weight": folded.encoder.detach(),
        "w_dec.weight": folded.decoder.detach().T.contiguous(),
        "b_dec": folded.decoder_bias.detach(),
    }
    if biased:
        tensors["w_enc.bias"] = folded.encoder_bias.detach()
    return sae_files(CONFIG_NAME, content, WEIGHTS_NAME, tensors)
