"""Language models in GGUF, the format of llama.cpp: their gated MLPs, dequantised one by one."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilens.algebra.approximation.activation import Activation, ActivationName
from bilens.base.errors import CheckpointError, MissingExtraError
from bilens.io.loaded_model import LoadedModel
from bilens.io.stored.comparison import compare_ends
from bilens.io.stored.families import AFTER, FAMILIES, LAYER, PLAIN, RMS
from bilens.io.stored.gated_tensors import GatedTensors, Layout, wrong_shape
from bilens.io.stored.gguf_header import GGUFHeader, TensorPlace, read_header
from bilens.io.stored.tensor import Place, Store, StoredTensor, Unchanged
from bilens.io.tensors import check_names, file_sha256

SEPARATE = Layout("ffn_gate", "ffn_up", "ffn_down")
FUSED = Layout("ffn_up", "ffn_up", "ffn_down")  # gate first
EXPERTS = Layout("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")  # stacks of all experts
SHARED = Layout("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
ROUTERS = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "exp_probs_b.bias")
NORMS = ("ffn_norm", "ffn_post_norm", "post_ffw_norm")  # beside the MLP, not in it


@dataclass(frozen=True)
class Architecture:
    """What llama.cpp computes in the MLPs of an architecture; the file does not say it.

    Attributes:
        model_type: what Hugging Face calls it.
        about_input: what an MLP receives, in words.
        activation: φ.
        layout: the names of its linear maps.
    """

    model_type: str
    about_input: str = RMS
    activation: ActivationName = "silu"
    layout: Layout = SEPARATE


ARCHITECTURES = {
    **{name: Architecture(name) for name in ("llama", "qwen2", "qwen3", "smollm3", "olmoe")},
    "granite": Architecture("granite", FAMILIES["granite"].about_input),
    "qwen2moe": Architecture("qwen2_moe"),
    "qwen3moe": Architecture("qwen3_moe"),
    "deepseek2": Architecture("deepseek_v3"),
    "olmo": Architecture("olmo", PLAIN),
    "olmo2": Architecture("olmo2", FAMILIES["olmo2"].about_input),
    "command-r": Architecture("cohere", FAMILIES["cohere"].about_input),
    "stablelm": Architecture("stablelm", LAYER),
    "gemma": Architecture("gemma", RMS, "gelu_tanh"),
    "gemma2": Architecture("gemma2", RMS + AFTER, "gelu_tanh"),
    "gemma3": Architecture("gemma3_text", RMS + AFTER, "gelu_tanh"),
    "phi3": Architecture("phi3", layout=FUSED),
    "glm4": Architecture("glm4", RMS + AFTER, layout=FUSED),
}


def read_gguf(path: Path) -> LoadedModel:
    """Return the gated MLPs of a GGUF file, each dequantised when it is read.

    Raises:
        CheckpointError: If it is damaged, or of an architecture that is not read.
        MissingExtraError: If the package gguf is not installed.
    """
    quantisation()  # a missing package is said before any work
    header = read_header(path)
    if number(header, "split.count") > 1:  # of which the first part alone says what it is
        raise CheckpointError(
            f"{path}: is one of {number(header, 'split.count')} parts of a model: merge them with "
            "`llama-gguf-split --merge`, and load the merged file."
        )
    name = header.values.get("general.architecture")
    found = ARCHITECTURES.get(name) if isinstance(name, str) else None
    if found is None:
        raise CheckpointError(
            f"{path}: is of the architecture {name!r}; gated MLPs are read of "
            f"{', '.join(sorted(ARCHITECTURES))}."
        )
    blocks = number(header, f"{name}.block_count")
    if not 0 < blocks <= len(header.tensors):
        raise CheckpointError(
            f"{path}: has {len(header.tensors)} tensors and claims {blocks} blocks: check that "
            "the download is complete."
        )
    store = stored_tensors(path, header)
    layers: dict[str, GatedTensors] = {}
    for index in range(blocks):
        layers |= mlps_of_block(path, store, index, found)
    return LoadedModel(
        None,
        str(path),
        file_sha256(path),
        provenance={
            "format": f"GGUF {name}",
            "read": "the gated MLPs alone, dequantised",
            "stored_as": ", ".join(kinds_of(header)),
            "mlp_input": found.about_input,
        },
        views={key: tensors.view(found.about_input) for key, tensors in layers.items()},
        compare=partial(compare_ends, layers, found.model_type),
    )


def mlps_of_block(
    path: Path, store: Store, index: int, found: Architecture
) -> dict[str, GatedTensors]:
    """Return the MLP of a block, or its experts.

    Raises:
        CheckpointError: If a tensor is missing, unknown or of another shape.
    """
    prefix, name = f"blk.{index}.", f"layers.{index}.mlp"
    names = {key.removeprefix(prefix) for key in store if key.startswith(prefix)}
    names -= {f"{norm}{end}" for norm in NORMS for end in (".weight", ".bias")}
    phi = Activation(found.activation)
    if "ffn_gate.0.weight" in names:  # before experts were stacked
        ones = [Layout(f"ffn_gate.{n}", f"ffn_up.{n}", f"ffn_down.{n}") for n in range(len(names))]
        ones = [one for one in ones if f"{one.gate}.weight" in names]
        check_names(path, names - {*ROUTERS}, [key for one in ones for key in one.names(False)])
        return {
            f"{name}.experts.{n}": GatedTensors.of(store, prefix, one, phi, False)
            for n, one in enumerate(ones)
        }
    if f"{EXPERTS.gate}.weight" not in names:
        bias = any(key.endswith(".bias") for key in names)
        check_names(path, names, found.layout.names(bias))
        return {name: GatedTensors.of(store, prefix, found.layout, phi, bias)}
    shared = SHARED.names(False) if f"{SHARED.gate}.weight" in names else []
    check_names(path, names - {*ROUTERS}, [*EXPERTS.names(False), *shared])
    gate, value, down = stacks = [store[f"{prefix}{key}"] for key in EXPERTS.names(False)]
    for stack in stacks:
        if len(stack.shape) != 3 or stack.shape[0] != gate.shape[0]:
            raise wrong_shape(stack, "a stack of as many matrices as there are experts")
    layers = {
        f"{name}.experts.{n}": GatedTensors(gate.one(n), value.one(n), down.one(n), phi).checked()
        for n in range(gate.shape[0])
    }
    if shared:
        layers[f"{name}.shared_experts"] = GatedTensors.of(store, prefix, SHARED, phi, False)
    return layers


def stored_tensors(path: Path, header: GGUFHeader) -> Store:
    """Return the tensors of the MLPs by name, checked to lie inside the file.

    Raises:
        CheckpointError: If one does not, or is of a type that cannot be dequantised.
    """
    unchanged = Unchanged.now(path)
    store = {}
    for name, place in header.tensors.items():
        if not name.startswith("blk.") or (".ffn_" not in name and ".exp_" not in name):
            continue
        row = row_bytes(path, name, place)
        rows = place.num_elements // place.shape[-1]
        if place.offset + rows * row > unchanged.size:
            raise CheckpointError(
                f"{path}: tensor {name!r} ends behind the end of the file: check that the "
                "download is complete."
            )
        fetch = partial(fetch_block, unchanged, place, row)
        store[name] = StoredTensor(path, name, place.shape, torch.float32, fetch)
    return store


def row_bytes(path: Path, name: str, place: TensorPlace) -> int:
    """Return the bytes of one row: blocks of a quantised type lie along rows."""
    sizes = quantisation().GGML_QUANT_SIZES.get(place.kind)
    width = place.shape[-1] if place.shape else 0
    if sizes is None or width == 0 or width % sizes[0] != 0:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {place.shape} is of the ggml type {place.kind}, "
            "which is not known or does not fit its rows: convert the model again."
        )
    return int(width // sizes[0] * sizes[1])


def fetch_block(unchanged: Unchanged, tensor: TensorPlace, row: int, place: Place) -> Tensor:
    """Return a block of a tensor, dequantised; no other part of the file is read."""
    unchanged.check()
    gguf = quantisation()
    leading = (*tensor.shape[:-1], row)
    raw: Any = np.memmap(unchanged.path, np.uint8, "r", tensor.offset, shape=leading)
    try:
        block = gguf.quants.dequantize(np.array(raw[place]), gguf.GGMLQuantizationType(tensor.kind))
    except (NotImplementedError, ValueError) as error:
        raise CheckpointError(
            f"{unchanged.path}: holds a quantisation that the package gguf cannot undo ({error}): "
            "upgrade it with `pip install -U gguf`, or convert the model to F16."
        ) from error
    return torch.from_numpy(np.ascontiguousarray(block, dtype=np.float32))


def quantisation() -> Any:
    """Return the package gguf, which knows how each type is quantised.

    Raises:
        MissingExtraError: If it is not installed.
    """
    try:
        import gguf
        import gguf.quants
    except ImportError as error:
        raise MissingExtraError("gguf", "gguf", "reading a GGUF file") from error
    return gguf


def kinds_of(header: GGUFHeader) -> list[str]:
    """Return the names of the types that the MLPs are stored in."""
    kinds = {
        place.kind
        for name, place in header.tensors.items()
        if ".ffn_" in name and len(place.shape) > 1
    }
    return sorted(quantisation().GGMLQuantizationType(kind).name for kind in kinds)


def number(header: GGUFHeader, key: str) -> int:
    """Return a whole number of the header; 0 where there is none."""
    value = header.values.get(key, 0)
    return value if isinstance(value, int) else 0
