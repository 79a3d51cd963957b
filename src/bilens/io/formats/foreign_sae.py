"""Shared by the readers of foreign sparse autoencoders: checks of a file, and a `TopKSAE` of it."""

import json
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from safetensors.torch import save as to_safetensors
from torch import Tensor

from bilens.base.checks import as_integer
from bilens.base.errors import CheckpointError, UsageError
from bilens.base.files import file_sha256
from bilens.io.load_report import LoadReport
from bilens.io.loaded_model import LoadedModel, ReadOptions
from bilens.io.tensors import check_matrices, check_names, check_shapes
from bilens.nn.topk_sae import Sign, TopKSAE


@dataclass(frozen=True, eq=False)
class Roles:
    """The tensors of a foreign file, each in the place it has in `TopKSAE`."""

    encoder: Tensor  # (num_latents, d_in)
    encoder_bias: Tensor  # (num_latents,)
    decoder: Tensor  # (num_latents, d_in)
    decoder_bias: Tensor  # (d_in,)
    k: int  # latents that an input keeps
    sign: Sign  # what happens to negative activations among them
    subtracts: bool = True  # whether decoder_bias is subtracted from the input before it is encoded


def load_sae(
    folder: Path,
    options: ReadOptions,
    weights: Path,
    roles: Roles,
    sizes: tuple[int, int],
    provenance: Mapping[str, str],
) -> LoadedModel:
    """Return an autoencoder of the sizes (d_in, num_latents) that its configuration says."""
    options.refuse_residual(folder, "is a sparse autoencoder, without residual")
    sae = build_sae(weights, roles)
    if (sae.d_in, sae.num_latents) != sizes:
        raise CheckpointError(
            f"{weights}: holds {sae.num_latents} latents for width {sae.d_in}; its configuration "
            f"says {sizes[1]} for {sizes[0]}: use the two files that were saved together."
        )
    made_of = f"top {sae.k} of {sae.num_latents} latents of width {sae.d_in}"
    why = "the autoencoder was not compared with the library that wrote it, which is not run"
    return LoadedModel(
        sae,
        str(folder),
        file_sha256(weights),
        provenance=provenance,
        load_report=LoadReport({"autoencoder": made_of}, False, {}, unverified=(why,)),
    )


def build_sae(path: Path, roles: Roles) -> TopKSAE:
    check_matrices(path, {"encoder": roles.encoder})
    num_latents, d_in = roles.encoder.shape
    try:
        sae = TopKSAE(d_in, num_latents, roles.k, sign=roles.sign).to(roles.encoder.dtype)
    except UsageError as error:
        raise CheckpointError(f"{path}: {error}") from None
    expected = {name: tuple(one.shape) for name, one in sae.named_parameters()}
    state: dict[str, Tensor] = {name: getattr(roles, name) for name in expected}
    asks = f"an encoder of {num_latents} latents for width {d_in} asks for"
    check_shapes(path, state, expected, asks)
    if not roles.subtracts:  # W x + b = W (x − d) + (b + W d)
        shift = roles.encoder.double() @ roles.decoder_bias.double()
        bias = roles.encoder_bias
        state["encoder_bias"] = (bias.double() + shift).to(bias.dtype)
    sae.load_state_dict({**state, "scale": sae.scale})
    return sae.eval()


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
    """Refuse a configuration with a value that would make it another function than a TopKSAE."""
    for key, values in expected.items():
        value = content.get(key)
        if not any(value is allowed or value == allowed for allowed in values):
            allowed_text = " or ".join(repr(allowed) for allowed in values if allowed is not None)
            raise CheckpointError(
                f"{path}: {key} is {value!r}, which a TopKSAE does not compute; expected "
                f"{allowed_text or 'nothing'}."
            )


def count_in(path: Path, content: Mapping[str, Any], key: str) -> int:
    value = as_integer(content.get(key))
    if value is None or value < 1:
        raise CheckpointError(
            f"{path}: {key} is {content.get(key)!r}; expected a positive integer."
        )
    return value
