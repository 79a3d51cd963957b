"""Language models in GGUF, the format of llama.cpp: their gated MLPs, dequantised one by one."""

import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from functools import partial
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from bilens.base.errors import CheckpointError, NoLayersError, optional_package
from bilens.base.files import file_sha256
from bilens.io.byte_ranges import Block, Opened, Region, Span, opened
from bilens.io.formats.ends import Ends, ends_of
from bilens.io.formats.families import FAMILIES, LESS_ONE, Family, activation_named
from bilens.io.formats.gguf_header import GGUFHeader, HeaderReader, TensorEntry
from bilens.io.formats.source import compare_ends
from bilens.io.loaded_model import Format, LoadedModel, ReadOptions
from bilens.io.stored_mlp import Layout, MLPLocation, Store, StoredMLP, StoredTensor, headers_of
from bilens.io.tensors import check_names

SEPARATE = Layout("ffn_gate", "ffn_up", "ffn_down")
FUSED = Layout("ffn_up", "ffn_up", "ffn_down")  # gate first
EXPERTS = Layout("ffn_gate_exps", "ffn_up_exps", "ffn_down_exps")  # stacks of all experts
SHARED = Layout("ffn_gate_shexp", "ffn_up_shexp", "ffn_down_shexp")
SCALES = {  # of a configuration: as a file calls them
    "embedding_multiplier": "embedding_scale",
    "residual_multiplier": "residual_scale",
    "logits_scaling": "logit_scale",
    "logit_scale": "logit_scale",
}
IN_GGUF: dict[str, Any] = {"embedding": "embed_tokens", "less_one": False, "tied": None}
ROUTERS = ("ffn_gate_inp.weight", "ffn_gate_inp_shexp.weight", "exp_probs_b.bias")
# architectures whose queries and keys the converters of llama.cpp turn
TURNED = (
    "llama", "mistral3", "deci", "granite", "granitemoe",
    "smollm3", "arcee", "minicpm", "olmo",
)  # fmt: skip
QUERIES_OR_KEYS = re.compile(r"blk\.\d+\.attn_(q|k)\.(?:weight|bias)")
# types of 32 numbers with one scale → scales that the lowest level is below 0; 0: it is stored
LOWEST = {"Q4_0": 8, "Q4_1": 0, "Q5_0": 16, "Q5_1": 0}
NORMS = ("ffn_norm", "ffn_post_norm", "post_ffw_norm")  # beside the MLP, not in it


# architecture → what Hugging Face calls it; llama.cpp computes the same there, and no file says it
ARCHITECTURES = {
    **{name: name for name in ("llama", "qwen2", "qwen3", "smollm3", "olmoe", "granite", "olmo")},
    **{name: name for name in ("olmo2", "stablelm", "gemma", "gemma2", "phi3", "glm4")},
    "qwen2moe": "qwen2_moe",
    "qwen3moe": "qwen3_moe",
    "deepseek2": "deepseek_v3",
    "command-r": "cohere",
    "gemma3": "gemma3_text",
}


def ends_said(name: str, said: Mapping[str, Any], width: int) -> Ends | None:
    """Return where the tokens of a file are: gains are stored as they act, names are others."""
    content = {
        **{key: said.get(f"{name}.{other}") for key, other in SCALES.items()},
        "hidden_size": width,
        "model_type": ARCHITECTURES[name],
    }
    found = ends_of({key: value for key, value in content.items() if value is not None})
    return None if found is None else replace(found, **IN_GGUF)


def read_gguf(path: Path, options: ReadOptions) -> LoadedModel:
    """Return the gated MLPs of a GGUF file, each dequantised when it is read."""
    package = quantisation()  # a missing package is said before any work
    options.refuse_residual(path, "is a language model, which always has residual paths")
    parts = parts_of(path)
    header = parts[0][0]
    name = header.values.get("general.architecture")
    if not isinstance(name, str) or name not in ARCHITECTURES:
        raise NoLayersError(
            f"{path}: is of the architecture {name!r}; gated MLPs are read of "
            f"{', '.join(sorted(ARCHITECTURES))}."
        )
    family, blocks = FAMILIES[ARCHITECTURES[name]], header.number(f"{name}.block_count")
    about_input = family.about_input.replace(LESS_ONE, "")
    entries = {key: one for part, _ in parts for key, one in part.tensors.items()}
    if not 0 < blocks <= len(entries):
        raise CheckpointError(
            f"{path}: has {len(entries)} tensors and claims {blocks} blocks: check that "
            "the download is complete."
        )
    whole = {key: one for part in parts for key, one in stored_tensors(*part).items()}
    store = {key: tensor for key, tensor in whole.items() if in_an_mlp(key)}
    phi = activation_named(family.activation)
    layers: dict[str, tuple[MLPLocation, StoredMLP]] = {}
    for index in range(blocks):
        for location in locations_in_block(path, store, index, family):
            if options.wanted is None or options.wanted(location.name):
                layers[location.name] = (location, StoredMLP.at_location(store, location, phi.phi))
    if not layers:
        raise options.nothing_wanted(path)
    kinds = {one.kind for key, one in entries.items() if ".ffn_" in key and len(one.shape) > 1}
    return LoadedModel(
        None,
        str(path),
        "" if options.in_place(path) else file_sha256(*(file.path for _, file in parts)),
        provenance={
            "format": f"GGUF {name}",
            "read": "the gated MLPs alone, dequantised",
            "stored_as": ", ".join(sorted(package.GGMLQuantizationType(k).name for k in kinds)),
            "mlp_input": about_input,
        },
        views={key: layer.view(about_input) for key, (_, layer) in layers.items()},
        stored=whole,
        headers=headers_of(whole) if options.in_place(path) else {},
        compare=partial(compare_ends, store, layers, ARCHITECTURES[name]),
        ends=ends_said(name, header.values, next(iter(layers.values()))[1].sizes.d_in),
    )


def parts_of(path: Path) -> list[tuple[GGUFHeader, Opened]]:
    """Return the headers of a file, or of all parts of a model of which it is the first."""
    file, number, found = path, 1, list[tuple[GGUFHeader, Opened]]()
    while (place := len(found)) < number:
        if place:
            file = path.with_name(f"{path.stem[:-14]}{place + 1:05}-of-{number:05}.gguf")
        if not file.is_file():
            raise CheckpointError(f"{path}: is one of {number} parts, and {file.name} is missing.")
        whole = opened(file)
        header = HeaderReader(whole).header()
        if not place and header.number("split.count") > 1:
            number = header.number("split.count")
            if not path.name.endswith(end := f"-00001-of-{number:05}.gguf"):
                raise CheckpointError(
                    f"{path}: is one of {number} parts of a model: name the first one, which ends "
                    f"with {end}."
                )
        said = header.number("split.no"), header.number("split.count")
        if number > 1 and said != (place, number):
            raise CheckpointError(
                f"{file}: does not say that it is part {place + 1} of {number}: use the "
                "files that were saved together."
            )
        # the first part alone says what the model is
        values = found[0][0].values if found else header.values
        twice = {*header.tensors} & {name for one, _ in found for name in one.tensors}
        if twice:
            raise CheckpointError(f"{file}: holds {min(twice)!r}, which an earlier part has too.")
        found.append((replace(header, values=values), whole))
    total, held = found[0][0].number("split.tensors.count"), sum(len(h.tensors) for h, _ in found)
    if number > 1 and total not in (0, held):
        raise CheckpointError(f"{path}: says {total} tensors; its parts hold {held}.")
    return found


GGUF = Format("GGUF", lambda path: path.suffix == ".gguf", read_gguf)


def locations_in_block(path: Path, store: Store, index: int, family: Family) -> list[MLPLocation]:
    """Return the MLP of a block, or its experts; no tensor is missing or left over."""
    prefix, name = f"blk.{index}.", f"layers.{index}.mlp"
    names = {key.removeprefix(prefix) for key in store if key.startswith(prefix)}
    names -= {f"{norm}{end}" for norm in NORMS for end in (".weight", ".bias")}
    if "ffn_gate.0.weight" in names:  # before experts were stacked
        ones = [Layout(f"ffn_gate.{n}", f"ffn_up.{n}", f"ffn_down.{n}") for n in range(len(names))]
        ones = [one for one in ones if f"{one.gate}.weight" in names]
        found_at = [one.at(f"{name}.experts.{n}", prefix) for n, one in enumerate(ones)]
        names -= {*ROUTERS}
    elif f"{EXPERTS.gate}.weight" in names:
        number_of = stack_size(store, prefix)
        found_at = [EXPERTS.at(f"{name}.experts.{n}", prefix, index=n) for n in range(number_of)]
        if f"{SHARED.gate}.weight" in names:
            found_at.append(SHARED.at(f"{name}.shared_experts", prefix))
        names -= {*ROUTERS}
    else:
        bias = any(key.endswith(".bias") for key in names)
        theirs = family.homes[0].layout
        layout = FUSED if theirs.gate == theirs.up else SEPARATE
        found_at = [layout.at(name, prefix, bias)]
    expected = {tensor.removeprefix(prefix) for one in found_at for tensor in one.tensors()}
    check_names(path, names, expected)
    return found_at


def stack_size(store: Store, prefix: str) -> int:
    """Return how many experts lie in the stacks of a block, as many in each."""
    stacks = [store[name] for name in EXPERTS.at("", prefix).tensors() if name in store]
    for stack in stacks:
        if len(stack.shape) != 3 or stack.shape[0] != stacks[0].shape[0] or stack.shape[0] == 0:
            raise stack.wrong_shape("a stack of as many matrices as there are experts")
    return stacks[0].shape[0]


def stored_tensors(header: GGUFHeader, file: Opened) -> Store:
    """Return the tensors by name; all of them lie in order, inside the file."""
    path, size = file.path, file.size
    store, end, before = {}, header.start, ""
    for name, entry in header.tensors.items():
        if entry.offset % header.alignment != 0 or entry.offset < end:
            raise CheckpointError(
                f"{path}: tensor {name!r} begins at byte {entry.offset}, before the end of "
                f"{before or 'the header'} or off the alignment of {header.alignment}: the file "
                "is damaged; download it again."
            )
        known = entry.kind in quantisation().GGML_QUANT_SIZES and entry.width > 0
        row = row_bytes(path, name, entry) if known or in_an_mlp(name) else 0
        end, before = entry.offset + prod(entry.shape) // max(entry.width, 1) * row, repr(name)
        if end > size:
            raise CheckpointError(
                f"{path}: tensor {name!r} ends behind the end of the file: check that the "
                "download is complete."
            )
        place = Region(file, entry.offset, (*entry.shape[:-1], row), torch.uint8)
        kind, grid = name_of_type(entry.kind), None
        fetch, locate = partial(dequantised, place, entry.kind), place.spans
        if kind in LOWEST:
            grid = partial(levels_of, place, row * 32 // entry.width, LOWEST[kind])
        if heads := heads_turned(header, name):
            fetch, locate = partial(half_a_head_apart, fetch, heads), partial(whole_of, place)
            grid = grid and partial(half_a_head_apart, grid, heads)
        store[name] = StoredTensor(
            path,
            name,
            entry.shape,
            torch.float32,
            fetch,
            locate=locate,
            quantised_as=kind,
            grid=grid,
        )
    return store


def heads_turned(header: GGUFHeader, name: str) -> int:
    """Return the heads of queries or keys whose rows llama.cpp keeps in its own order; else 0."""
    arch, found = header.values.get("general.architecture"), QUERIES_OR_KEYS.fullmatch(name)
    if found is None or arch not in TURNED:
        return 0
    heads = header.number(f"{arch}.attention.head_count")
    heads = header.number(f"{arch}.attention.head_count_kv") or heads if found[1] == "k" else heads
    rows = header.tensors[name].shape[0]
    return heads if heads > 0 and rows % (2 * heads) == 0 else 0


def half_a_head_apart(fetch: Callable[[Block], Tensor], heads: int, block: Block) -> Tensor:
    """Return rows that are rotated together half a head apart, as Hugging Face has them."""
    rows = fetch(())  # llama.cpp has them side by side
    turned = rows.reshape(heads, -1, 2, *rows.shape[1:]).transpose(1, 2).reshape(rows.shape)
    return turned[block]


def whole_of(place: Region, _: Block) -> tuple[Span, ...]:
    return place.spans(())


def in_an_mlp(name: str) -> bool:
    return name.startswith("blk.") and (".ffn_" in name or ".exp_" in name)


def row_bytes(path: Path, name: str, entry: TensorEntry) -> int:
    """Return the bytes of one row: blocks of a quantised type lie along rows."""
    sizes = quantisation().GGML_QUANT_SIZES.get(entry.kind)
    if sizes is None or entry.width == 0 or entry.width % sizes[0] != 0:
        raise CheckpointError(
            f"{path}: tensor {name!r} of shape {entry.shape} is of the ggml type {entry.kind}, "
            "which is not known or does not fit its rows: convert the model again."
        )
    return int(entry.width // sizes[0] * sizes[1])


def name_of_type(kind: int) -> str:
    """Return the name of a ggml type, floating-point ones as torch calls them."""
    found = next((one.name for one in quantisation().GGMLQuantizationType if one == kind), "")
    return {"F32": "float32", "F16": "float16", "BF16": "bfloat16"}.get(found, found)


def dequantised(place: Region, kind: int, block: Block) -> Tensor:
    """Return a block of a tensor; no other part of the file is read."""
    gguf, raw = quantisation(), place.fetch(block).numpy()
    try:
        found = gguf.quants.dequantize(raw, gguf.GGMLQuantizationType(kind))
    except (NotImplementedError, ValueError) as error:
        raise CheckpointError(
            f"{place.file.path}: holds a quantisation that the package gguf cannot undo ({error}): "
            "upgrade it with `pip install -U gguf`, or convert the model to F16."
        ) from error
    return torch.from_numpy(np.ascontiguousarray(found, dtype=np.float32))


def levels_of(place: Region, size: int, below: int, block: Block) -> Tensor:
    """Return the lowest level of each block of codes and the step to the next, of `size` bytes."""
    raw = place.fetch(block)
    said = raw.reshape(*raw.shape[:-1], -1, size)[..., :4].contiguous().view(torch.float16).float()
    return torch.stack([-below * said[..., 0] if below else said[..., 1], said[..., 0]], dim=-1)


def quantisation() -> Any:
    """Return the package gguf, which knows how each type is quantised."""
    return optional_package("gguf", "gguf", "reading a GGUF file", "gguf.quants")
