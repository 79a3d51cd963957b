"""Autoencoders of SAELens, of EleutherAI's sparsify and of the paper's official repository."""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import read_json
from bilens.io.formats.foreign_sae import (
    Roles,
    check_keys,
    check_values,
    count_in,
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
from bilens.nn.topk_sae import TopKSAE


def folded_for(sae: TopKSAE, library: str) -> TopKSAE:
    """Return an autoencoder of scale 1, if a library computes the same."""
    if sae.sign != "relu":
        raise UsageError(
            f'the autoencoder keeps negative activations (sign="raw"), and {library} sets them to '
            "zero: it would be another function; use the official layout."
        )
    return sae.folded()


# ---- SAELens: `cfg.json` beside `sae_weights.safetensors`, of version 6 and of those before

CFG_NAME, SAELENS_WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"  # whose layout is written
SAELENS_TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
COMMON = {"d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations"}
KNOWN_TO_6 = COMMON | {
    "architecture", "k", "rescale_acts_by_decoder_norm", "reshape_activations", "metadata",
    # of training, which decide nothing afterwards
    "decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient",
}  # fmt: skip
KNOWN_BEFORE_6 = COMMON | {
    "architecture", "activation_fn", "activation_fn_str", "activation_fn_kwargs",
    "finetuning_scaling_factor", "reshape_activations", "sae_lens_training_version",
    "model_name", "model_class_name", "model_from_pretrained_kwargs", "neuronpedia_id",
    "hook_name", "hook_point", "hook_layer", "hook_point_layer",
    "hook_head_index", "hook_point_head_index", "prepend_bos", "context_size", "seqpos_slice",
    "dataset_path", "dataset_trust_remote_code", "sae_lens_version",
}  # fmt: skip
SAELENS_UNDERSTOOD = {
    "apply_b_dec_to_input": (True, False, None),
    "normalize_activations": ("none", False, None),
    "reshape_activations": ("none", None),
    "rescale_acts_by_decoder_norm": (True, False, None),
}
# our hook point → its name in TransformerLens, which SAELens uses, behind blocks.{i}.
LENS_POINTS = {
    "resid_pre": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "ln2.hook_normalized",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}


def read_saelens(folder: Path, options: ReadOptions) -> LoadedModel:
    path, weights = folder / CFG_NAME, folder / SAELENS_WEIGHTS
    content = read_json(path)
    metadata = content.get("metadata", {})
    metadata = metadata if isinstance(metadata, dict) else {}
    version = content.get("sae_lens_version") or metadata.get("sae_lens_version")
    before_6 = version is None or str(version).split(".")[0] in {"0", "1", "2", "3", "4", "5"}
    k = k_before_6(path, content) if before_6 else k_of(path, content)
    check_values(path, content, SAELENS_UNDERSTOOD)
    tensors, _ = read_safetensors(weights)
    check_names(weights, tensors, SAELENS_TENSORS)
    check_matrices(weights, {name: tensors[name] for name in ("W_enc", "W_dec")})
    norms = decoder_norms(path, content, tensors["W_dec"])
    subtracts = bool(content.get("apply_b_dec_to_input", True))
    if not subtracts or bool((norms != 1).any()):  # what is folded in has no room in half precision
        wider = {n: torch.promote_types(t.dtype, torch.float32) for n, t in tensors.items()}
        tensors = {name: tensor.to(wider[name]) for name, tensor in tensors.items()}
    roles = Roles(
        encoder=scaled(tensors["W_enc"].T, norms),
        encoder_bias=scaled(tensors["b_enc"], norms),
        decoder=scaled(tensors["W_dec"], 1 / norms),
        decoder_bias=tensors["b_dec"],
        k=k,
        sign="relu",
        subtracts=subtracts,
    )
    sizes = count_in(path, content, "d_in"), count_in(path, content, "d_sae")
    provenance = {"format": f"SAELens {version or 'before 6'}"}
    provenance |= said_by(content if before_6 else metadata)
    return load_sae(folder, options, weights, roles, sizes, provenance)


SAELENS = Format("SAELens", lambda path: (path / SAELENS_WEIGHTS).exists(), read_saelens)


def k_of(path: Path, content: Mapping[str, Any]) -> int:
    check_architecture(path, content.get("architecture"))
    check_keys(path, content, ("architecture", "d_in", "d_sae", "k"), KNOWN_TO_6)
    return count_in(path, content, "k")


def k_before_6(path: Path, content: Mapping[str, Any]) -> int:
    """Return k of a configuration of a version before 6; without a top-k function it is refused."""
    activation = content.get("activation_fn", content.get("activation_fn_str"))
    if activation is None and content.get("architecture") == "topk":
        return k_of(path, content)
    if activation != "topk" or content.get("architecture") not in (None, "standard", "topk"):
        check_architecture(path, content.get("architecture", "standard"), activation)
    check_keys(path, content, ("d_in", "d_sae", "activation_fn_kwargs"), KNOWN_BEFORE_6)
    check_values(path, content, {"finetuning_scaling_factor": (False, None)})
    options = content["activation_fn_kwargs"]
    if not isinstance(options, dict):
        raise CheckpointError(f"{path}: activation_fn_kwargs is {options!r}; expected k in it.")
    return count_in(path, options, "k")


def check_architecture(path: Path, architecture: object, activation: object = "topk") -> None:
    """Refuse autoencoders of another kind: read as top-k, they would be another function."""
    if architecture != "topk" or activation != "topk":
        raise CheckpointError(
            f"{path}: describes the architecture {architecture!r} with the activation "
            f"{activation!r}; bilens reads autoencoders of SAELens that are top-k."
        )


def decoder_norms(path: Path, content: Mapping[str, Any], decoder: Tensor) -> Tensor:
    """Return by what pre-activations are multiplied, (num_latents,) float64; ones mostly."""
    norms = decoder.double().square().sum(dim=1).sqrt()
    if not content.get("rescale_acts_by_decoder_norm"):
        return torch.ones_like(norms)
    if bool((norms == 0).any()):
        raise CheckpointError(
            f"{path}: {int((norms == 0).sum())} rows of W_dec are zero, and activations are "
            "divided by their norms: the file is damaged."
        )
    return norms


def scaled(tensor: Tensor, factors: Tensor) -> Tensor:
    """Return a tensor with its rows multiplied, rounded once; unchanged where all factors are 1."""
    if len(factors) != len(tensor) or bool((factors == 1).all()):  # the shapes are checked later
        return tensor
    factors = factors.reshape(-1, *[1] * (tensor.ndim - 1))
    return (tensor.double() * factors).to(tensor.dtype)


def said_by(content: Mapping[str, Any]) -> dict[str, str]:
    """Return the hook point, under our name where it has one, and the model."""
    found: dict[str, str] = {}
    name = content.get("hook_name", content.get("hook_point"))
    if isinstance(name, str):
        found["hook_name"] = name
        for point, theirs in LENS_POINTS.items():
            if match := re.fullmatch(rf"(blocks\.\d+)\.{re.escape(theirs)}", name, re.ASCII):
                found = {"hook": f"{match[1]}.{point}"}
    if isinstance(content.get("model_name"), str):
        found["model"] = content["model_name"]
    return found


def saelens_files(sae: TopKSAE, provenance: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of an autoencoder in the layout of SAELens, name → content."""
    folded = folded_for(sae, "top-k of SAELens")
    metadata = {"sae_lens_version": VERSION, "sae_lens_training_version": None}
    if "hook" in provenance:
        block, _, point = provenance["hook"].rpartition(".")
        known = point in LENS_POINTS
        metadata["hook_name"] = f"{block}.{LENS_POINTS[point]}" if known else provenance["hook"]
    if "model" in provenance:
        metadata["model_name"] = provenance["model"]
    content = {
        "architecture": "topk",
        "d_in": folded.d_in,
        "d_sae": folded.num_latents,
        "k": folded.k,
        "dtype": str(folded.encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": True,
        "normalize_activations": "none",
        "reshape_activations": "none",
        "rescale_acts_by_decoder_norm": False,
        "metadata": metadata,
    }
    tensors = {
        "W_enc": folded.encoder.detach().T.contiguous(),
        "b_enc": folded.encoder_bias.detach(),
        "W_dec": folded.decoder.detach(),
        "b_dec": folded.decoder_bias.detach(),
    }
    return sae_files(CFG_NAME, content, SAELENS_WEIGHTS, tensors)


# ---- sparsify: `cfg.json` beside `sae.safetensors`, a folder a hook point

SPARSIFY_WEIGHTS = "sae.safetensors"
SPARSIFY_TENSORS = ("encoder.weight", "encoder.bias", "W_dec", "b_dec")
SPARSIFY_KNOWN = (
    "activation", "expansion_factor", "normalize_decoder", "num_latents", "multi_topk",
    "skip_connection", "transcode", "signed",
)  # fmt: skip
SPARSIFY_UNDERSTOOD = {
    "activation": ("topk", None),
    "skip_connection": (False, None),  # adds x W_skip to the reconstruction
    "transcode": (False, None),  # encodes another activation than it reconstructs
    "signed": (False, None),  # chooses by absolute value
}


def read_sparsify(folder: Path, options: ReadOptions) -> LoadedModel:
    path, weights = folder / CFG_NAME, folder / SPARSIFY_WEIGHTS
    content = read_json(path)
    check_keys(path, content, ("d_in", "k"), SPARSIFY_KNOWN)
    check_values(path, content, SPARSIFY_UNDERSTOOD)
    d_in, k = count_in(path, content, "d_in"), count_in(path, content, "k")
    if content.get("num_latents", 0) == 0:  # its way of saying that the factor decides
        content["num_latents"] = d_in * count_in(path, content, "expansion_factor")
    tensors, _ = read_safetensors(weights)
    check_names(weights, tensors, SPARSIFY_TENSORS)
    encoder, bias, decoder, shift = (tensors[name] for name in SPARSIFY_TENSORS)

    roles = Roles(encoder, bias, decoder, shift, k=k, sign="relu")
    sizes = d_in, count_in(path, content, "num_latents")
    return load_sae(folder, options, weights, roles, sizes, {"format": "sparsify"})


SPARSIFY = Format("sparsify", lambda path: (path / SPARSIFY_WEIGHTS).exists(), read_sparsify)


def sparsify_files(sae: TopKSAE, _: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of an autoencoder in the layout of sparsify, name → content."""
    folded = folded_for(sae, "sparsify")
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
    parts = folded.encoder, folded.encoder_bias, folded.decoder, folded.decoder_bias
    tensors = {n: part.detach() for n, part in zip(SPARSIFY_TENSORS, parts, strict=True)}
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
