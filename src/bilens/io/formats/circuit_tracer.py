"""Transcoders of circuit-tracer: a file a layer, `layer_3.safetensors`, beside `config.yaml`."""

import re
from pathlib import Path

from bilens.base.errors import CheckpointError
from bilens.base.files import check_regular_file
from bilens.io.byte_ranges import read_header
from bilens.io.formats.foreign_sae import Roles, load_sae
from bilens.io.formats.saelens import said_by
from bilens.io.loaded_model import Format, LoadedModel, ReadOptions
from bilens.io.remote import RemotePath
from bilens.io.tensors import check_matrices, check_names, read_safetensors

LAYER = re.compile(r"layer_(\d+)\.safetensors", re.ASCII)
CROSS_LAYER = re.compile(r"W_(enc|dec)_\d+", re.ASCII)  # a file of one, and its first tensor
FIRST_OF_CROSS_LAYER = "W_enc_0.safetensors"
NAMES, OPTIONAL = ("W_enc", "b_enc", "W_dec", "b_dec"), ("W_skip", "activation_function.threshold")
HOOKS = {"hook_name": "feature_input_hook", "hook_name_out": "feature_output_hook"}
CONFIG_YAML, MAX_YAML = "config.yaml", 1 << 16  # bytes
# key: value, of a line of its own; all that is read of the file
SAID = re.compile(r"^(\w+):[ \t]+[\"']?([\w./-]+)[\"']?[ \t]*(?:#.*)?\r?$", re.ASCII | re.MULTILINE)


def is_transcoder(path: Path) -> bool:
    """Say whether a path is a transcoder of circuit-tracer, also one that is refused by name."""
    if path.is_dir():
        return (path / FIRST_OF_CROSS_LAYER).exists()
    if path.suffix != ".safetensors":
        return False
    if CROSS_LAYER.fullmatch(path.stem):
        return path.stem in read_header(path).entries
    named = LAYER.fullmatch(path.name) is not None
    if not named and not isinstance(path, RemotePath):  # of which no more is fetched than is read
        named = "model_kind" in said_beside(path)
    return named and read_header(path).entries.keys() >= {*NAMES}


def read_transcoder(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the transcoder of one layer, with the hook points that `config.yaml` says."""
    said = said_beside(path)
    if path.is_dir() or CROSS_LAYER.fullmatch(path.stem) or "cross" in said.get("model_kind", ""):
        raise CheckpointError(
            f"{path}: is a cross-layer transcoder of circuit-tracer, whose latents write into all "
            "later layers; bilens reads the transcoder of one layer (layer_3.safetensors)."
        )
    tensors, _ = read_safetensors(path)
    check_names(path, tensors, NAMES, OPTIONAL, ": expected the tensors of one transcoder.")
    check_matrices(path, {name: tensors[name] for name in ("W_enc", "W_dec")})
    encoder, bias, decoder, decoder_bias = (tensors[name] for name in NAMES)
    roles = Roles(
        encoder,
        bias,
        decoder,
        decoder_bias,
        threshold=tensors.get("activation_function.threshold", bias.new_zeros(len(encoder))),
        transcodes=True,
        skip=tensors.get("W_skip"),
    )
    about: dict[str, str | None] = {"model_name": said.get("model_name")}
    if named := LAYER.fullmatch(path.name):
        hooks = {ours: said[theirs] for ours, theirs in HOOKS.items() if theirs in said}
        about |= {ours: f"blocks.{int(named[1])}.{theirs}" for ours, theirs in hooks.items()}
    provenance = {"format": "circuit-tracer", **said_by(about)}
    return load_sae(path, options, path, roles, (), provenance)


CIRCUIT_TRACER = Format("circuit-tracer", is_transcoder, read_transcoder)


def said_beside(path: Path) -> dict[str, str]:
    """Return the plain entries of the `config.yaml` beside a file; none where there is no file."""
    config = path.parent / CONFIG_YAML
    if not config.exists():
        return {}
    status = check_regular_file(config, "expected what circuit-tracer says about its transcoders")
    if status.st_size > MAX_YAML:
        return {}
    return dict(SAID.findall(config.read_bytes().decode("utf-8", "replace")))
