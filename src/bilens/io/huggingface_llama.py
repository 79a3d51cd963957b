"""Llama folders of Hugging Face: `config.json` and safetensors, one file or several shards.

Nothing in the folder is run.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path

import torch
from torch import Tensor

from bilens.base.checks import check_memory
from bilens.base.errors import CheckpointError
from bilens.io.build_transformer import build_transformer
from bilens.io.config import is_list_of, read_json
from bilens.io.llama_config import LlamaConfig, parse_llama_config
from bilens.io.tensors import (
    check_is_file,
    check_names,
    check_shapes,
    file_sha256,
    read_safetensors,
)
from bilens.nn import BilinearTransformer
from bilens.nn.llama_layout import UNEMBED, from_llama_tensors, llama_shapes

CONFIG_NAME, WEIGHTS_NAME = "config.json", "model.safetensors"
INDEX_NAME = "model.safetensors.index.json"
SHARD = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*\.safetensors", re.ASCII)  # no path, no ".."
OLD_BUFFER = ".rotary_emb.inv_freq"  # in older files; it follows from the configuration
MAX_INDEX_BYTES = 16 << 20


def read_llama(folder: Path) -> tuple[BilinearTransformer, str]:
    """Return the model in a folder, and the SHA-256 of its weights.

    Gains of the norms are multiplied into the weights that read them. Where these are of half
    precision and a gain is not one, the model is in float32, in which the products are exact.

    Raises:
        CheckpointError: If a file is missing or damaged, or the model is not a plain Llama.
        NonFiniteError: If a weight is NaN or infinite.
        MemoryLimitError: If the weights would not fit.
    """
    config = parse_llama_config(folder / CONFIG_NAME, read_json(folder / CONFIG_NAME))
    tensors, sha256 = read_weights(folder)
    check_llama_tensors(folder, tensors, config)
    gains = [tensors[name] for name in tensors if name.endswith("norm.weight")]
    if any(not bool((gain == 1).all()) for gain in gains):
        wide = torch.promote_types(gains[0].dtype, torch.float32)
        tensors = {name: tensor.to(wide) for name, tensor in tensors.items()}
    state = from_llama_tensors(tensors, config.ours, config.n_kv_head)
    return build_transformer(config.ours, state), sha256


def read_weights(folder: Path) -> tuple[dict[str, Tensor], str]:
    """Return the tensors of a folder and the SHA-256 of its file, or of its shards' SHA-256.

    Raises:
        CheckpointError: If a file is missing, damaged or not where it belongs.
        NonFiniteError: If a tensor holds NaN or infinity.
        MemoryLimitError: If they would not fit twice, as read and as converted.
    """
    whole, index = folder / WEIGHTS_NAME, folder / INDEX_NAME
    placed = read_index(index) if index.exists() and not whole.exists() else None
    files = [whole] if placed is None else [folder / name for name in sorted({*placed.values()})]
    size = sum(check_is_file(file).stat().st_size for file in files)
    check_memory(2 * size, f"{folder}: reading and converting it", "load a smaller model")
    tensors: dict[str, Tensor] = {}
    for file in files:
        found, _ = read_safetensors(file)
        if placed is not None:
            check_names(file, found, [name for name, shard in placed.items() if shard == file.name])
        tensors |= found
    hashes = [file_sha256(file) for file in files]
    joined = hashlib.sha256("".join(hashes).encode()).hexdigest()
    return tensors, hashes[0] if placed is None else joined


def read_index(path: Path) -> dict[str, str]:
    """Return tensor → file from the index of the shards; the files are plain names.

    Raises:
        CheckpointError: If it is no such index, or a file lies elsewhere than beside it.
    """
    placed = read_json(path, MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(placed, dict) or not placed or not is_list_of(str, [*placed.values()]):
        raise CheckpointError(
            f"{path}: has no weight_map of tensors to file names: restore the file."
        )
    odd = sorted({name for name in placed.values() if not SHARD.fullmatch(name)})
    if odd:
        raise CheckpointError(
            f"{path}: names the file {odd[0]!r}; expected plain names of .safetensors files "
            "beside it: restore the file."
        )
    return placed


def check_llama_tensors(folder: Path, tensors: dict[str, Tensor], config: LlamaConfig) -> None:
    """Refuse tensors that are not exactly those of the configuration.

    Those that follow from it are dropped: old files hold the frequencies of the rotary angles,
    and some hold the unembedding of a tied model, which transformers does not read either.
    """
    ours = config.ours
    if ours.n_layer > len(tensors):
        raise CheckpointError(
            f"{folder}: holds {len(tensors)} tensors; {CONFIG_NAME} says {ours.n_layer} layers: "
            "use the files that were saved together."
        )
    for name in [name for name in tensors if name.endswith(OLD_BUFFER)]:
        del tensors[name]
    if ours.tied:
        tensors.pop(UNEMBED, None)
    shapes = llama_shapes(ours, config.n_kv_head)
    check_names(folder, tensors, shapes)
    expected = {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}
    check_shapes(folder, tensors, expected)
