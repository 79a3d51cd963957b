"""Autoencoders of EleutherAI's sparsify and of the paper's official repository."""

from collections.abc import Mapping
from pathlib import Path

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import read_json
from bilens.io.formats.foreign_sae import (
    Roles,
    check_keys,
    check_values,
    count_in,
    folded_for,
    load_sae,
    sae_files,
)
from bilens.io.loaded_model import (
    CONFIG_NAME,
    WEIGHTS_NAME,
    Format,
    LoadedModel,
    ReadOptions,
    foreign_keys,
)
from bilens.io.tensors import check_matrices, check_names, read_safetensors
from bilens.nn.block import NAME, POINTS
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.nn.topk_sae import TopKSAE

# ---- sparsify: `cfg.json` beside `sae.safetensors`, a folder a hook point

CFG_NAME, SPARSIFY_WEIGHTS = "cfg.json", "sae.safetensors"
SPARSIFY_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
SPARSIFY_KNOWN = (
    "activation", "expansion_factor", "normalize_decoder", "num_latents", "multi_topk",
    "skip_connection", "transcode", "signed",
)  # fmt: skip
SPARSIFY_UNDERSTOOD = {
    "activation": ("topk", None),
    "transcode": (True, False, None),  # encodes another activation than it reconstructs
    "signed": (False, None),  # chooses by absolute value
}


def read_sparsify(folder: Path, options: ReadOptions) -> LoadedModel:
    path, weights = folder / CFG_NAME, folder / SPARSIFY_WEIGHTS
    content = read_json(path)
    check_keys(path, content, ("d_in", "k"), SPARSIFY_KNOWN)
    transcodes = bool(content.get("transcode"))
    adds = {"skip_connection": (transcodes, False, None)}  # W_skip x to what it writes
    check_values(path, content, SPARSIFY_UNDERSTOOD | adds)
    d_in, k = count_in(path, content, "d_in"), count_in(path, content, "k")
    if content.get("num_latents", 0) == 0:  # its way of saying that the factor decides
        content["num_latents"] = d_in * count_in(path, content, "expansion_factor")
    tensors, _ = read_safetensors(weights)
    skips = ("W_skip",) if content.get("skip_connection") else ()
    check_names(weights, tensors, (*SPARSIFY_TENSORS, *skips))
    encoder, bias, decoder, shift = (tensors[name] for name in SPARSIFY_TENSORS)

    skip = tensors.get("W_skip")
    roles = Roles(encoder, bias, decoder, shift, k=k, transcodes=transcodes, skip=skip)
    sizes = d_in, count_in(path, content, "num_latents"), *([d_in] if transcodes else [])
    return load_sae(folder, options, weights, roles, sizes, {"format": "sparsify"})


SPARSIFY = Format("sparsify", lambda path: (path / SPARSIFY_WEIGHTS).exists(), read_sparsify)


def sparsify_files(sae: SparseAutoencoder, _: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of an autoencoder in the layout of sparsify, name → content."""
    folded = folded_for(sae, "sparsify")
    if not isinstance(folded, TopKSAE) or folded.width != folded.d_in:
        raise UsageError(
            "sparsify keeps the k largest latents and writes the width that it reads: use the "
            "layout of SAELens."
        )
    content = {
        "activation": "topk",
        "expansion_factor": max(1, folded.num_latents // folded.d_in),
        "normalize_decoder": True,
        "num_latents": folded.num_latents,
        "k": folded.k,
        "multi_topk": False,
        "skip_connection": folded.skip is not None,
        "transcode": folded.is_transcoder,
        "d_in": folded.d_in,
    }
    parts = folded.encoder, folded.encoder_bias, folded.decoder, folded.decoder_bias
    tensors = {n: part.detach() for n, part in zip(SPARSIFY_TENSORS, parts, strict=True)}
    tensors |= {} if folded.skip is None else {"W_skip": folded.skip.detach()}
    return sae_files(CFG_NAME, content, SPARSIFY_WEIGHTS, tensors)


# ---- the paper's repository: `config.json` beside `model.safetensors`

REQUIRED = ("point", "d_model", "expansion", "k")
OFFICIAL_KNOWN = (
    "target", "normalize", "encoder_bias", "bilinear_encoder", "passthrough",
    # of training, which decide nothing afterwards
    "lr", "in_batch", "out_batch", "n_batches", "n_buffers", "n_ctx", "val_steps",
    "dead_thresh", "init_scale", "token_lookup", "decoder_decay", "normalize_decoder",
    "tag", "kwargs",
)  # fmt: skip
OFFICIAL_UNDERSTOOD = {
    "bilinear_encoder": (False, None),
    "passthrough": (False, None),
    "normalize": (None,),  # kept in the file, and used by some versions of the code only
}


def read_official_sae(folder: Path, options: ReadOptions) -> LoadedModel:
    """Return the autoencoder of an official folder; it keeps negative activations."""
    path, weights = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    content = read_json(path)
    check_keys(path, content, REQUIRED, OFFICIAL_KNOWN)
    check_values(path, content, OFFICIAL_UNDERSTOOD)
    hook = hook_of(path, content["point"])
    if content.get("target") is not None and hook_of(path, content["target"]) != hook:
        raise CheckpointError(
            f"{path}: reads {hook} and reconstructs {hook_of(path, content['target'])}; an "
            "autoencoder reconstructs what it reads."
        )
    d_in, k = count_in(path, content, "d_model"), count_in(path, content, "k")
    tensors, _ = read_safetensors(weights)
    names = ["w_enc.weight", "w_dec.weight", "b_dec"]
    check_names(weights, tensors, names + ["w_enc.bias"] * bool(content.get("encoder_bias")))
    encoder, decoder, shift = (tensors[name] for name in names)
    check_matrices(weights, {name: tensors[name] for name in names[:2]})
    bias = tensors.get("w_enc.bias", encoder.new_zeros(len(encoder)))

    roles = Roles(encoder, bias, decoder.T, shift, k=k, sign="raw")
    sizes = d_in, d_in * count_in(path, content, "expansion")
    provenance = {"format": "SAE of the paper's official repository", "hook": hook}
    return load_sae(folder, options, weights, roles, sizes, provenance)


OFFICIAL_SAE = Format(
    "the paper's autoencoder", lambda path: foreign_keys(path) >= {*REQUIRED}, read_official_sae
)


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


def official_files(sae: SparseAutoencoder, provenance: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of an autoencoder in the official layout, name → content."""
    hook = provenance.get("hook", "")
    match = NAME.fullmatch(hook)
    if not isinstance(sae, TopKSAE) or sae.is_transcoder:
        raise UsageError(
            "the official layout is of autoencoders that keep the k largest latents: use the "
            "layout of SAELens or of sparsify."
        )
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
