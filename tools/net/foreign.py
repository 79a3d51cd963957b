"""Models in the formats of others, written without bilens."""

from __future__ import annotations

import json
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.torch import save_file
from torch import Tensor

from tools.net.inputs import randn, seeded

BASE: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": 8,
    "intermediate_size": 12,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5: dict[str, Any] = {
    "vocab_size": 16,
    "d_model": 8,
    "d_ff": 12,
    "d_kv": 4,
    "num_layers": 2,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("llama", {**BASE, "hidden_act": "linear"}),
    "llama_silu": ("llama", {**BASE, "num_key_value_heads": 1}),
    "qwen2": ("qwen2", BASE),
    "gemma3": ("gemma3_text", {**BASE, "head_dim": 4}),
    "phi3": ("phi3", BASE),
    "t5": ("t5", T5),
    "mixtral": ("mixtral", {**BASE, "num_local_experts": 3, "num_experts_per_tok": 2}),
    "gpt2": ("gpt2", {"vocab_size": 16, "n_embd": 8, "n_layer": 2, "n_head": 2}),
}
AUTOS = ("AutoModelForCausalLM", "AutoModelForSeq2SeqLM")
SAELENS = {
    "d_in": 6,
    "d_sae": 16,
    "dtype": "float32",
    "device": "cpu",
    "apply_b_dec_to_input": True,
    "normalize_activations": "none",
    "reshape_activations": "none",
    "metadata": {
        "sae_lens_version": "6.54.12",
        "sae_lens_training_version": "6.54.12",
        "model_name": "tiny",
        "hook_name": "blocks.2.hook_mlp_out",
    },
    "k": 3,
    "rescale_acts_by_decoder_norm": True,
    "architecture": "topk",
}
SPARSIFY = {
    "activation": "topk",
    "expansion_factor": 32,
    "normalize_decoder": True,
    "num_latents": 16,
    "k": 3,
    "multi_topk": False,
    "skip_connection": False,
    "transcode": False,
    "d_in": 6,
}
OFFICIAL_SAE: dict[str, Any] = {
    "point": ["mlp_out", 4],
    "target": None,
    "d_model": 6,
    "expansion": 2,
    "k": 2,
    "lr": 1e-4,
    "normalize": None,
    "bilinear_encoder": False,
    "encoder_bias": False,
    "tag": None,
    "kwargs": {},
}
OFFICIAL_LANGUAGE = {
    "n_head": 2,
    "n_layer": 2,
    "n_ctx": 7,
    "d_model": 8,
    "d_hidden": 6,
    "bilinear": True,
    "gate": None,
    "bias": False,
    "normalization": True,
    "tokenizer": "ts-4096",
    "repo": None,
    "architectures": ["Transformer"],
    "torch_dtype": "float32",
    "transformers_version": "4.47.0",
}


def write(path: Path, tensors: dict[str, Tensor]) -> None:
    """A safetensors file; views are copied, as the format asks."""
    path.parent.mkdir(parents=True, exist_ok=True)
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)


def with_config(folder: Path, name: str, config: dict[str, Any]) -> Path:
    """The folder with its JSON file."""
    folder.mkdir(parents=True)
    (folder / name).write_text(json.dumps(config))
    return folder


def mlps(folder: Path) -> None:
    """MLPs under the names of PyTorch and of Hugging Face."""
    pair = {
        "fc1.weight": randn(6, 4),
        "fc2.weight": randn(3, 6, seed=1),
        "fc1.bias": randn(6, seed=2),
        "fc2.bias": randn(3, seed=3),
    }
    chain = {}
    for index, (d_in, d_out) in enumerate(pairwise((4, 6, 5, 2))):
        chain[f"{2 * index}.weight"] = randn(d_out, d_in, seed=index)
        chain[f"{2 * index}.bias"] = randn(d_out, seed=index + 50)
    names = ("gate_proj", "up_proj", "down_proj")
    shapes = ((7, 4), (7, 4), (4, 7))
    gated = {
        f"mlp.{name}.weight": randn(*shape, seed=seed)
        for seed, (name, shape) in enumerate(zip(names, shapes, strict=True))
    }
    poisoned = {name: tensor.clone() for name, tensor in pair.items()}
    poisoned["fc1.weight"][0, 1] = torch.nan
    tables = {"pair": pair, "chain": chain, "glu": gated, "poisoned": poisoned}
    for name, tensors in tables.items():
        write(folder / f"{name}.safetensors", tensors)
    torch.save(pair, folder / "pair.pt")
    rows = randn(200, 4, seed=9)
    np.save(folder / "rows.npy", rows.numpy())
    lines = [",".join(map(repr, row)) for row in rows.round(decimals=6).tolist()]
    (folder / "rows.csv").write_text("\n".join(["a,b,c,d", *lines, ""]))
    (folder / "short.csv").write_text("a,b\n1,2\n")


def official(folder: Path) -> None:
    """Checkpoints of the paper's repository: images, language, surrogates, toys."""
    image = {
        "embed.weight": randn(4, 6),
        "head.weight": randn(3, 4, seed=1),
        **{f"blocks.{n}.weight": randn(8, 4, seed=2 + n) for n in range(2)},
    }
    image = {name: tensor.float() for name, tensor in image.items()}
    write(folder / "image.safetensors", image)
    torch.save(image, folder / "image.pt")
    write(folder / "one.safetensors", {k: v for k, v in image.items() if k != "blocks.1.weight"})
    language = {"transformer.wte.weight": randn(11, 8), "lm_head.weight": randn(11, 8, seed=1)}
    for n in range(2):
        block = f"transformer.h.{n}."
        shapes = {"attn.qkv": (24, 8), "attn.o": (8, 8), "mlp.w": (12, 8), "mlp.p": (8, 6)}
        for seed, (name, shape) in enumerate(shapes.items()):
            language[f"{block}{name}.weight"] = randn(*shape, seed=10 * n + seed) / 3
        language[f"{block}attn.rotary.inv_freq"] = torch.tensor([1.0, 0.01])
    at = with_config(folder / "language", "config.json", OFFICIAL_LANGUAGE)
    write(at / "model.safetensors", language)
    factors = {"left": (5, 4), "right": (5, 4), "down": (3, 4)}
    surrogate = {name: randn(*shape, seed=n) for n, (name, shape) in enumerate(factors.items())}
    write(folder / "surrogate.safetensors", surrogate)
    toy = {
        **{f"{part}.weight": randn(4, 5, seed=n) for n, part in enumerate(("left", "right"))},
        "head.weight": randn(3, 4, seed=2),
        "head.bias": randn(3, seed=9),
    }
    write(folder / "toy.safetensors", toy)


def autoencoders(folder: Path) -> None:
    """Sparse autoencoders of SAELens, sparsify and the paper's repository; one is refused."""
    encoder, decoder = randn(6, 16).float(), randn(16, 6, seed=1).float()
    biases = {"b_enc": randn(16, seed=2).float(), "b_dec": randn(6, seed=3).float()}
    for name, change in (("saelens", {}), ("jumprelu", {"architecture": "jumprelu"})):
        at = with_config(folder / name, "cfg.json", {**SAELENS, **change})
        write(at / "sae_weights.safetensors", {"W_enc": encoder, "W_dec": decoder, **biases})
    at = with_config(folder / "sparsify", "cfg.json", SPARSIFY)
    tensors = {
        "encoder.weight": encoder.T,
        "encoder.bias": biases["b_enc"],
        "W_dec": decoder,
        "b_dec": biases["b_dec"],
    }
    write(at / "sae.safetensors", tensors)
    at = with_config(folder / "official", "config.json", OFFICIAL_SAE)
    rows = randn(12, 6, seed=4).float()
    tensors = {"w_enc.weight": rows, "w_dec.weight": rows.T, "b_dec": biases["b_dec"]}
    write(at / "model.safetensors", tensors)


def hugging_face(folder: Path) -> None:
    """Tiny models of several families, as transformers saves them."""
    import transformers

    quiet: Any = transformers.utils.logging
    quiet.disable_progress_bar()
    quiet.set_verbosity_error()

    for name, (kind, options) in FAMILIES.items():
        config = transformers.AutoConfig.for_model(kind, **options)
        for auto in AUTOS:
            known = getattr(transformers, auto)
            if type(config) in known._model_mapping:
                seeded(known.from_config(config)).save_pretrained(folder / name)
                break
    path = folder / "llama" / "config.json"
    quantised = {**json.loads(path.read_text()), "quantization_config": {"bits": 4}}
    at = with_config(folder / "quantised", "config.json", quantised)
    weights = (folder / "llama" / "model.safetensors").read_bytes()
    (at / "model.safetensors").write_bytes(weights)


def write_gguf(
    path: Path,
    tensors: Mapping[str, Any],
    kind: str = "F32",
    arch: str = "llama",
    blocks: int = 1,
    **values: int,
) -> dict[str, Tensor]:
    """Write a file of llama.cpp; returns what its tensors are when dequantised."""
    import gguf
    from gguf import quants

    writer = gguf.GGUFWriter(path, arch)
    writer.add_block_count(blocks)
    writer.add_tokenizer_model("gpt2")
    writer.add_token_list(["a", "b", "longer"])
    writer.add_token_scores([0.0, 1.0, 2.0])
    for key, value in values.items():
        writer.add_uint16(key.replace("__", " ").replace("_", ".").replace(" ", "_"), value)
    meant = {}
    for name, tensor in tensors.items():
        wanted = gguf.GGMLQuantizationType["F32" if tensor.ndim < 2 else kind]
        packed = quants.quantize(tensor.astype(np.float32), wanted)
        meant[name] = torch.from_numpy(quants.dequantize(packed, wanted).reshape(tensor.shape))
        writer.add_tensor(name, packed, raw_dtype=wanted)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return meant


def gguf_files(folder: Path) -> None:
    """Files of llama.cpp, plain and quantised."""
    folder.mkdir()
    rng = np.random.default_rng(0)
    shapes = {"attn_q": (64, 64), "ffn_gate": (96, 64), "ffn_up": (96, 64), "ffn_down": (64, 96)}
    for kind in ("F32", "Q8_0"):
        tensors = {
            f"blk.{index}.{name}.weight": rng.standard_normal(shape) / 8
            for index in range(2)
            for name, shape in shapes.items()
        }
        write_gguf(folder / f"{kind}.gguf", tensors, kind, blocks=2)
    (folder / "cut.gguf").write_bytes((folder / "F32.gguf").read_bytes()[:300])


def make(folder: Path) -> None:
    """Everything above."""
    mlps(folder / "files")
    official(folder / "official")
    autoencoders(folder / "saes")
    hugging_face(folder / "hf")
    gguf_files(folder / "gguf")
