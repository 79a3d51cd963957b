"""SAELens: `cfg.json` beside `sae_weights.safetensors`, of version 6 and of the versions before."""

from __future__ import annotations

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

CONFIG_NAME, WEIGHTS_NAME = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"  # whose layout is written
TENSORS = ("W_enc", "b_enc", "W_dec", "b_dec")
COMMON = {"d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input", "normalize_activations"}
KNOWN = COMMON | {
    *("architecture", "k", "rescale_acts_by_decoder_norm", "reshape_activations", "metadata"),
    # of training, which decide nothing afterwards
    *("decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient"),
}
KNOWN_BEFORE_6 = COMMON | {
    *("architecture", "activation_fn", "activation_fn_str", "activation_fn_kwargs"),
    *("finetuning_scaling_factor", "reshape_activations", "sae_lens_training_version"),
    *("model_name", "model_class_name", "model_from_pretrained_kwargs", "neuronpedia_id"),
    *("hook_name", "hook_point", "hook_layer", "hook_point_layer"),
    *("hook_head_index", "hook_point_head_index", "prepend_bos", "context_size", "seqpos_slice"),
    *("dataset_path", "dataset_trust_remote_code", "sae_lens_version"),
}
UNDERSTOOD = {
    "apply_b_dec_to_input": (True, False, None),
    "normalize_activations": ("none", False, None),
    "reshape_activations": ("none", None),
}


def read_saelens(folder: Path, options: ReadOptions) -> LoadedModel:
    """Return the autoencoder of a folder that SAELens wrote."""
    path, weights = folder / CONFIG_NAME, folder / WEIGHTS_NAME
    content = read_json(path)
    metadata = content.get("metadata", {})
    metadata = metadata if isinstance(metadata, dict) else {}
    version = content.get("sae_lens_version") or metadata.get("sae_lens_version")
    before_6 = version is None or str(version).split(".")[0] in {"0", "1", "2", "3", "4", "5"}
    k = k_before_6(path, content) if before_6 else k_of(path, content)
    check_values(path, content, UNDERSTOOD)
    tensors, _ = read_safetensors(weights)
    check_names(weights, tensors, TENSORS)
    for name in ("W_enc", "W_dec"):
        if tensors[name].ndim != 2:
            raise CheckpointError(
                f"{weights}: {name} has shape {tuple(tensors[name].shape)}; two axes expected."
            )
    norms = decoder_norms(path, content, tensors["W_dec"])
    subtracts = bool(content.get("apply_b_dec_to_input", True))
    sae = build_sae(
        weights,
        Roles(
            encoder=scaled(tensors["W_enc"].T, norms),
            encoder_bias=scaled(tensors["b_enc"], norms),
            decoder=scaled(tensors["W_dec"], 1 / norms),
            decoder_bias=tensors["b_dec"],
            k=k,
            sign="relu",
            subtracts=subtracts,
        ),
    )
    check_sizes(weights, sae, count_in(path, content, "d_in"), count_in(path, content, "d_sae"))
    wide = {name: tensor.double() for name, tensor in tensors.items()}

    def original(x: Tensor) -> Tensor:
        pre = (x - wide["b_dec"] * subtracts) @ wide["W_enc"] + wide["b_enc"]
        z = kept(pre * norms, k).relu() / norms
        return z @ wide["W_dec"] + wide["b_dec"]

    provenance = {"format": f"SAELens {version or 'before 6'}"}
    provenance |= said_by(content if before_6 else metadata)
    return load_sae(folder, options, weights, sae, original, provenance)


SAELENS = Format("SAELens", lambda path: (path / WEIGHTS_NAME).exists(), read_saelens)


def k_of(path: Path, content: Mapping[str, Any]) -> int:
    check_architecture(path, content.get("architecture"))
    check_keys(path, content, ("architecture", "d_in", "d_sae", "k"), KNOWN)
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
    check_values(path, content, {"rescale_acts_by_decoder_norm": (True, False, None)})
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
    if bool((factors == 1).all()):
        return tensor
    factors = factors.reshape(-1, *[1] * (tensor.ndim - 1))
    if len(factors) != len(tensor):  # refused later, with the shapes
        return tensor
    return (tensor.double() * factors).to(tensor.dtype)


def said_by(content: Mapping[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    name = content.get("hook_name", content.get("hook_point"))
    if isinstance(name, str):
        hook = from_transformer_lens(name)
        found |= {"hook_name": name} if hook is None else {"hook": hook}
    if isinstance(content.get("model_name"), str):
        found["model"] = content["model_name"]
    return found


def saelens_files(sae: TopKSAE, provenance: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of an autoencoder in the layout of SAELens, name → content."""
    if sae.sign != "relu":
        raise UsageError(
            'the autoencoder keeps negative activations (sign="raw"), and top-k of SAELens sets '
            "them to zero: it would be another function; use the official layout."
        )
    folded = sae.folded()
    dtype = str(folded.encoder.dtype).removeprefix("torch.")
    metadata = {"sae_lens_version": VERSION, "sae_lens_training_version": None}
    if "hook" in provenance:
        metadata["hook_name"] = to_transformer_lens(provenance["hook"])
    if "model" in provenance:
        metadata["model_name"] = provenance["model"]
    content = {
        "architecture": "topk",
        "d_in": folded.d_in,
        "d_sae": folded.num_latents,
        "k": folded.k,
        "dtype": dtype,
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
    return sae_files(CONFIG_NAME, content, WEIGHTS_NAME, tensors)


# ---- hook points under the names of TransformerLens, which SAELens uses

POINTS = {
    "resid_pre": "hook_resid_pre",
    "attn_out": "hook_attn_out",
    "resid_mid": "hook_resid_mid",
    "mlp_in": "ln2.hook_normalized",
    "mlp_out": "hook_mlp_out",
    "resid_post": "hook_resid_post",
}


def to_transformer_lens(hook: str) -> str:
    """Return blocks.{i}.hook_mlp_out for blocks.{i}.mlp_out, and so on; others as they are."""
    block, _, point = hook.rpartition(".")
    return f"{block}.{POINTS[point]}" if point in POINTS else hook


def from_transformer_lens(name: str) -> str | None:
    """Return the hook point of a name; None if it is none of those above."""
    for point, theirs in POINTS.items():
        match = re.fullmatch(rf"(blocks\.\d+)\.{re.escape(theirs)}", name, re.ASCII)
        if match:
            return f"{match[1]}.{point}"
    return None
