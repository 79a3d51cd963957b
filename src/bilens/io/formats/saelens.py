"""Autoencoders and transcoders of SAELens: `cfg.json` beside `sae_weights.safetensors`."""

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
    folded_for,
    load_sae,
    sae_files,
)
from bilens.io.loaded_model import Format, LoadedModel, ReadOptions
from bilens.io.tensors import check_matrices, check_names, check_shapes, read_safetensors
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.nn.topk_sae import TopKSAE

CFG_NAME, SAELENS_WEIGHTS = "cfg.json", "sae_weights.safetensors"
VERSION = "6.54.12"  # whose layout is written
# architecture → its tensors beside W_enc, W_dec and b_dec
TENSORS: dict[str, tuple[str, ...]] = {
    "standard": ("b_enc",),
    "topk": ("b_enc",),
    "jumprelu": ("b_enc", "threshold"),
    "gated": ("b_gate", "b_mag", "r_mag"),
    "transcoder": ("b_enc",),
    "skip_transcoder": ("b_enc", "W_skip"),
    "jumprelu_transcoder": ("b_enc", "threshold"),
    "jumprelu_skip_transcoder": ("b_enc", "threshold", "W_skip"),
}
NOT_READ = {
    "temporal": "whose latents depend on the tokens before",
    "matching_pursuit": "which chooses its latents one after the other",
    "abstopk": "which chooses latents by absolute value",
    **dict.fromkeys(
        ("batchtopk", "matryoshka_batchtopk"),
        "whose threshold is not made yet (save_inference_model saves it, as jumprelu)",
    ),
}
BEFORE_6 = ("0", "1", "2", "3", "4", "5")  # first numbers of versions
KNOWN = {
    "architecture", "d_in", "d_sae", "dtype", "device", "apply_b_dec_to_input",
    "normalize_activations", "reshape_activations", "rescale_acts_by_decoder_norm", "metadata",
    # of training, which decide nothing afterwards
    "decoder_init_norm", "use_sparse_activations", "aux_loss_coefficient",
    # of versions before 6
    "activation_fn", "activation_fn_str", "activation_fn_kwargs", "finetuning_scaling_factor",
    "sae_lens_training_version", "model_name", "model_class_name", "model_from_pretrained_kwargs",
    "neuronpedia_id", "hook_name", "hook_point", "hook_layer", "hook_point_layer",
    "hook_head_index", "hook_point_head_index", "prepend_bos", "context_size", "seqpos_slice",
    "dataset_path", "dataset_trust_remote_code", "sae_lens_version",
}  # fmt: skip
UNDERSTOOD: dict[str, tuple[Any, ...]] = {
    "apply_b_dec_to_input": (True, False, None),
    "normalize_activations": ("none", False, None),
    "reshape_activations": ("none", None),
    "finetuning_scaling_factor": (False, None),
    "rescale_acts_by_decoder_norm": (False, None),
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
    before_6 = version is None or str(version).split(".")[0] in BEFORE_6
    kind, k = architecture_of(path, content, before_6)
    tensors, _ = read_safetensors(weights)
    check_names(weights, tensors, ("W_enc", "W_dec", "b_dec", *TENSORS[kind]))
    roles = roles_of(path, weights, content, tensors, kind, k)
    sizes = tuple(count_in(path, content, key) for key in ("d_in", "d_sae"))
    sizes += (count_in(path, content, "d_out"),) if roles.transcodes else ()
    provenance = {"format": f"SAELens {version or 'before 6'}"}
    provenance |= said_by(content if before_6 else metadata)
    return load_sae(folder, options, weights, roles, sizes, provenance)


SAELENS = Format("SAELens", lambda path: (path / SAELENS_WEIGHTS).exists(), read_saelens)


def architecture_of(
    path: Path, content: Mapping[str, Any], before_6: bool
) -> tuple[str, int | None]:
    """Return the architecture, and k of a top-k; refuse what would make it another function.

    Versions before 6 say top-k by an activation function and its arguments.
    """
    said = content.get("architecture", "standard" if before_6 else None)
    activation = content.get("activation_fn", content.get("activation_fn_str"))
    kind = "topk" if activation == "topk" and said in ("standard", None) else said
    usual = (None, "topk" if kind == "topk" else "relu")
    if not isinstance(kind, str) or kind not in TENSORS or activation not in usual:
        why = NOT_READ.get(str(kind), f"with the activation {activation!r}")
        raise CheckpointError(
            f"{path}: describes the architecture {said!r}, {why}; bilens reads "
            f"{', '.join(TENSORS)} with their usual activations."
        )
    required, understood = {"d_in", "d_sae"}, {**UNDERSTOOD}
    if kind == "topk":
        required.add("activation_fn_kwargs" if activation else "k")
        understood["rescale_acts_by_decoder_norm"] = (True, False, None)
    if "transcoder" in kind:
        required.add("d_out")
        understood["apply_b_dec_to_input"] = (False,)
    check_keys(path, content, required, KNOWN | required)
    check_values(path, content, understood)
    if kind != "topk":
        return kind, None
    options = content["activation_fn_kwargs"] if activation else content
    if not isinstance(options, dict):
        raise CheckpointError(f"{path}: activation_fn_kwargs is {options!r}; expected k in it.")
    return kind, count_in(path, options, "k")


def roles_of(
    path: Path,
    weights: Path,
    content: Mapping[str, Any],
    tensors: dict[str, Tensor],
    kind: str,
    k: int | None,
) -> Roles:
    """Return the tensors in their places; what scales latents is multiplied into the encoder."""
    check_matrices(weights, {name: tensors[name] for name in ("W_enc", "W_dec")})
    d_in, num_latents = tensors["W_enc"].shape
    vectors = {name: tensors[name] for name in TENSORS[kind] if name != "W_skip"}
    asks = f"an encoder of {num_latents} latents for width {d_in} asks for"
    check_shapes(weights, vectors, dict.fromkeys(vectors, (num_latents,)), asks)
    norms = decoder_norms(path, content, tensors["W_dec"])
    subtracts = bool(content.get("apply_b_dec_to_input", True))
    if not subtracts or kind == "gated" or bool((norms != 1).any()):
        # what is folded in has no room in half precision
        wider = {n: torch.promote_types(t.dtype, torch.float32) for n, t in tensors.items()}
        tensors = {name: tensor.to(wider[name]) for name, tensor in tensors.items()}
    encoder = scaled(tensors["W_enc"].T, norms)
    bias = tensors["b_mag" if kind == "gated" else "b_enc"]
    threshold = None if kind == "topk" else torch.zeros_like(bias)
    if kind == "gated":  # e^r w·x + m > m − e^r g where w·x + g > 0
        factors = tensors["r_mag"].double().exp()
        threshold = (bias.double() - factors * tensors["b_gate"].double()).to(bias.dtype)
        encoder = scaled(encoder, factors)
    elif "threshold" in tensors:
        threshold = tensors["threshold"]
    return Roles(
        encoder=encoder,
        encoder_bias=scaled(bias, norms),
        decoder=scaled(tensors["W_dec"], 1 / norms),
        decoder_bias=tensors["b_dec"],
        k=k,
        # a relu is before the threshold: below 0 it keeps nothing
        threshold=None if threshold is None else threshold.clamp(min=0),
        subtracts=subtracts,
        transcodes="transcoder" in kind,
        skip=tensors.get("W_skip"),
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
    """Return the hook points, under our names where they have one, and the model."""
    found: dict[str, str] = {}
    ours = {theirs: point for point, theirs in LENS_POINTS.items()}
    places = {"": content.get("hook_name", content.get("hook_point"))}
    places["_out"] = content.get("hook_name_out")
    for end, name in places.items():
        if isinstance(name, str):
            match = re.fullmatch(r"(blocks\.\d+)\.(.+)", name, re.ASCII)
            known = match is not None and match[2] in ours
            found |= {f"hook{end}": f"{match[1]}.{ours[match[2]]}"} if match and known else {}
            found |= {} if known else {f"hook_name{end}": name}
    if isinstance(content.get("model_name"), str):
        found["model"] = content["model_name"]
    return found


def saelens_files(sae: SparseAutoencoder, provenance: Mapping[str, str]) -> dict[str, bytes]:
    """Return the files of an autoencoder in the layout of SAELens, name → content."""
    folded, architecture, more = folded_for(sae, "SAELens"), "jumprelu", dict[str, object]()
    own = {"W_skip": folded.skip, "threshold": getattr(folded, "threshold", None)}
    if folded.is_transcoder:
        architecture += "_transcoder" if folded.skip is None else "_skip_transcoder"
        more = {"d_out": folded.width}
    if isinstance(folded, TopKSAE):
        if folded.is_transcoder:
            raise UsageError("SAELens has no top-k transcoders, as this is one: use sparsify.")
        architecture, more = "topk", {"k": folded.k, "rescale_acts_by_decoder_norm": False}
    metadata = {"sae_lens_version": VERSION, "sae_lens_training_version": None}
    for key, theirs in (("hook", "hook_name"), ("hook_out", "hook_name_out")):
        block, _, point = provenance.get(key, "").rpartition(".")
        if key in provenance:
            known = point in LENS_POINTS
            metadata[theirs] = f"{block}.{LENS_POINTS[point]}" if known else provenance[key]
    if "model" in provenance:
        metadata["model_name"] = provenance["model"]
    content = {
        "architecture": architecture,
        "d_in": folded.d_in,
        "d_sae": folded.num_latents,
        "dtype": str(folded.encoder.dtype).removeprefix("torch."),
        "device": "cpu",
        "apply_b_dec_to_input": not folded.is_transcoder,
        "normalize_activations": "none",
        "reshape_activations": "none",
        **more,
        "metadata": metadata,
    }
    tensors = {
        "W_enc": folded.encoder.detach().T.contiguous(),
        "b_enc": folded.encoder_bias.detach(),
        "W_dec": folded.decoder.detach(),
        "b_dec": folded.decoder_bias.detach(),
        **{name: part.detach() for name, part in own.items() if part is not None},
    }
    return sae_files(CFG_NAME, content, SAELENS_WEIGHTS, tensors)
