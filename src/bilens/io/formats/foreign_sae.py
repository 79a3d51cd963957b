"""Shared by readers of foreign sparse autoencoders: checks of a file, and a module of it."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save as to_safetensors
from torch import Tensor

from bilens.base.checks import as_integer
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import file_sha256
from bilens.io.load_report import LoadReport
from bilens.io.loaded_model import LoadedModel, ReadOptions
from bilens.io.tensors import check_all_finite, check_matrices, check_names, check_shapes
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.nn.threshold_sae import ThresholdSAE
from bilens.nn.topk_sae import Sign, TopKSAE


@dataclass(frozen=True, eq=False)
class Roles:
    """The tensors of a foreign file, each in the place it has in a `SparseAutoencoder`."""

    encoder: Tensor  # (num_latents, d_in)
    encoder_bias: Tensor  # (num_latents,)
    decoder: Tensor  # (num_latents, width)
    decoder_bias: Tensor  # (width,)
    k: int | None = None  # latents that an input keeps
    sign: Sign = "relu"  # what happens to negative activations among them
    threshold: Tensor | None = None  # (num_latents,), above which latents are kept, in place of k
    subtracts: bool = True  # whether decoder_bias is subtracted from the input before it is encoded
    transcodes: bool = False  # whether it writes another activation than it reads
    skip: Tensor | None = None  # (width, d_in), of a transcoder


def load_sae(
    folder: Path,
    options: ReadOptions,
    weights: Path,
    roles: Roles,
    sizes: tuple[int, ...],
    provenance: Mapping[str, str],
) -> LoadedModel:
    """Return an autoencoder of the sizes (d_in, num_latents) that its configuration says.

    Of a transcoder its d_out is a third one; without sizes the tensors alone decide them.
    """
    options.refuse_residual(folder, "is a sparse autoencoder, without residual")
    sae = build_sae(weights, roles)
    found = (sae.d_in, sae.num_latents, *([] if sae.d_out is None else [sae.d_out]))
    if sizes and found != sizes:
        raise CheckpointError(
            f"{weights}: has (width, latents{', width written' * sae.is_transcoder}) {found}; its "
            f"configuration says {sizes}: use the two files that were saved together."
        )
    kept = f"top {sae.k} of" if isinstance(sae, TopKSAE) else "above thresholds,"
    made_of = f"{kept} {sae.num_latents} latents of width {sae.d_in}"
    made_of += f", a transcoder to width {sae.width}" if sae.is_transcoder else ""
    made_of += "" if sae.skip is None else " with a skip"
    why = "the autoencoder was not compared with the library that wrote it, which is not run"
    return LoadedModel(
        sae,
        str(folder),
        file_sha256(weights),
        provenance=provenance,
        load_report=LoadReport({"autoencoder": made_of}, False, {}, unverified=(why,)),
    )


def build_sae(path: Path, roles: Roles) -> SparseAutoencoder:
    check_matrices(path, {"encoder": roles.encoder, "decoder": roles.decoder})
    num_latents, d_in = roles.encoder.shape
    kind: dict[str, Any] = {"d_out": roles.decoder.shape[1] if roles.transcodes else None}
    kind["skip"] = roles.skip is not None
    sae: SparseAutoencoder
    try:
        with torch.device("meta"):  # whose sizes no tensor has been held against yet
            if roles.k is None:
                sae = ThresholdSAE(d_in, num_latents, **kind)
            else:
                sae = TopKSAE(d_in, num_latents, roles.k, sign=roles.sign, **kind)
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from None
    expected = {name: tuple(one.shape) for name, one in sae.state_dict().items() if name != "scale"}
    state: dict[str, Tensor] = {name: getattr(roles, name) for name in expected}
    asks = f"an encoder of {num_latents} latents for width {d_in} asks for"
    check_shapes(path, state, expected, asks)
    check_all_finite(path, state)  # once more: factors were multiplied in
    if roles.threshold is not None and bool((roles.threshold < 0).any()):
        raise CheckpointError(
            f"{path}: {int((roles.threshold < 0).sum())} thresholds are below 0, which would keep "
            "negative activations: expected 0 or more."
        )
    if not (roles.subtracts or roles.transcodes):  # W x + b = W (x − d) + (b + W d)
        shift = roles.encoder.double() @ roles.decoder_bias.double()
        bias = roles.encoder_bias
        state["encoder_bias"] = (bias.double() + shift).to(bias.dtype)
    state["scale"] = roles.encoder.new_ones(())
    sae.load_state_dict({name: one.contiguous() for name, one in state.items()}, assign=True)
    return sae.eval()


def folded_for(sae: SparseAutoencoder, library: str) -> SparseAutoencoder:
    """Return an autoencoder of scale 1, if a library computes the same."""
    if isinstance(sae, TopKSAE) and sae.sign != "relu":
        raise UsageError(
            f'the autoencoder keeps negative activations (sign="raw"), and {library} sets them to '
            "zero: it would be another function; use the official layout."
        )
    return sae.folded()


def sae_files(
    config_name: str, content: Mapping[str, Any], weights_name: str, tensors: dict[str, Tensor]
) -> dict[str, bytes]:
    """Return the files of an autoencoder in the layout of a library, name → content."""
    config = json.dumps(content, indent=2).encode()
    return {config_name: config, weights_name: to_safetensors(tensors, {"format": "pt"})}


def check_keys(
    path: Path, content: Mapping[str, Any], required: Collection[str], known: Collection[str]
) -> None:
    """Refuse a configuration that lacks a key, or has one whose meaning is not known."""
    advice = (
        "; an unknown key could change what the autoencoder computes, so nothing is guessed: "
        "export it again with a version that is supported."
    )
    check_names(path, content, required, known, advice)


def check_values(
    path: Path, content: Mapping[str, Any], expected: Mapping[str, tuple[Any, ...]]
) -> None:
    """Refuse a configuration with a value that would make it another function than ours."""
    for key, values in expected.items():
        value = content.get(key)
        if not any(value is allowed or value == allowed for allowed in values):
            allowed_text = " or ".join(repr(allowed) for allowed in values if allowed is not None)
            raise CheckpointError(
                f"{path}: {key} is {value!r}, which no autoencoder of bilens computes; expected "
                f"{allowed_text or 'nothing'}."
            )


def count_in(path: Path, content: Mapping[str, Any], key: str) -> int:
    value = as_integer(content.get(key))
    if value is None or value < 1:
        raise CheckpointError(
            f"{path}: {key} is {content.get(key)!r}; expected a positive integer."
        )
    return value
