"""A model in the layout of DeepSeek-V3, with its names, shards and FP8 scales, and tiny widths.

`python -m bench.sweep.deepseek FOLDER`: 61 layers of which 3 are dense, 256 experts and a shared
one in each other, a layer that predicts further tokens, 163 files, 14,909 MLPs that are read.
"""

import json
import sys
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor

FILES, BLOCK = 163, 128
WIDTH, HIDDEN, DENSE = 64, 16, 96  # 7168, 2048 and 18432 there
LATENT = {"q_lora_rank": 12, "kv_lora_rank": 8, "qk_nope_head_dim": 8, "qk_rope_head_dim": 4}
HEADS, VALUE, VOCABULARY = 2, 8, 32
KINDS = {torch.float8_e4m3fn: "F8_E4M3", torch.float32: "F32", torch.bfloat16: "BF16"}


def config(layers: int, experts: int, more: int) -> dict[str, object]:
    return {
        "architectures": ["DeepseekV3ForCausalLM"],
        "model_type": "deepseek_v3",
        "hidden_act": "silu",
        "hidden_size": WIDTH,
        "intermediate_size": DENSE,
        "moe_intermediate_size": HIDDEN,
        "num_hidden_layers": layers,
        "first_k_dense_replace": min(3, layers),
        "n_routed_experts": experts,
        "n_shared_experts": 1,
        "num_nextn_predict_layers": more,
        "num_attention_heads": HEADS,
        "v_head_dim": VALUE,
        **LATENT,
        "vocab_size": VOCABULARY,
        "torch_dtype": "bfloat16",
        "quantization_config": {
            "activation_scheme": "dynamic",
            "fmt": "e4m3",
            "quant_method": "fp8",
            "weight_block_size": [BLOCK, BLOCK],
        },
    }


def attention() -> dict[str, tuple[int, int]]:
    """Return name → shape of the matrices of latent attention."""
    queries, keys, inner, turned = LATENT.values()
    return {
        "q_a_proj": (queries, WIDTH),
        "q_b_proj": (HEADS * (inner + turned), queries),
        "kv_a_proj_with_mqa": (keys + turned, WIDTH),
        "kv_b_proj": (HEADS * (inner + VALUE), keys),
        "o_proj": (WIDTH, HEADS * VALUE),
    }


def gated(name: str, hidden: int) -> dict[str, tuple[int, int]]:
    up = (hidden, WIDTH)
    return {f"{name}.gate_proj": up, f"{name}.up_proj": up, f"{name}.down_proj": (WIDTH, hidden)}


def tensors(layers: int, experts: int, more: int) -> Iterator[dict[str, Tensor]]:
    """Yield the tensors of the model: what stands before the layers, each layer, what is behind."""
    draw = torch.Generator().manual_seed(0)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=draw).bfloat16()

    def stored(name: str, shape: tuple[int, int]) -> dict[str, Tensor]:
        blocks = [-(-side // BLOCK) for side in shape]
        codes = (64 * torch.randn(shape, generator=draw)).to(torch.float8_e4m3fn)
        scales = (1 + torch.rand(blocks, generator=draw)) / (64 * shape[1] ** 0.5)
        return {f"{name}.weight": codes, f"{name}.weight_scale_inv": scales}

    yield {"model.embed_tokens.weight": normal(VOCABULARY, WIDTH)}
    for layer in range(layers + more):
        home = f"model.layers.{layer}"
        matrices = {f"{home}.self_attn.{name}": shape for name, shape in attention().items()}
        plain = {
            f"{home}.self_attn.q_a_layernorm.weight": normal(LATENT["q_lora_rank"]),
            f"{home}.self_attn.kv_a_layernorm.weight": normal(LATENT["kv_lora_rank"]),
            f"{home}.input_layernorm.weight": normal(WIDTH),
            f"{home}.post_attention_layernorm.weight": normal(WIDTH),
        }
        if layer < 3:
            matrices |= gated(f"{home}.mlp", DENSE)
        else:
            for expert in range(experts):
                matrices |= gated(f"{home}.mlp.experts.{expert}", HIDDEN)
            matrices |= gated(f"{home}.mlp.shared_experts", HIDDEN)
            plain[f"{home}.mlp.gate.weight"] = normal(experts, WIDTH)
            plain[f"{home}.mlp.gate.e_score_correction_bias"] = normal(experts)
        if layer >= layers:
            for name, shape in {
                "embed_tokens.weight": (VOCABULARY, WIDTH),
                "enorm.weight": (WIDTH,),
                "hnorm.weight": (WIDTH,),
                "eh_proj.weight": (WIDTH, 2 * WIDTH),
                "shared_head.norm.weight": (WIDTH,),
                "shared_head.head.weight": (VOCABULARY, WIDTH),
            }.items():
                plain[f"{home}.{name}"] = normal(*shape)
        made = plain
        for name, shape in matrices.items():
            made |= stored(name, shape)
        yield made
    yield {"model.norm.weight": normal(WIDTH), "lm_head.weight": normal(VOCABULARY, WIDTH)}


def write_model(
    folder: Path, layers: int = 61, experts: int = 256, more: int = 1, files: int = FILES
) -> Path:
    """Write the model; the same bytes each time."""
    folder.mkdir(parents=True, exist_ok=True)
    parts = tensors(layers, experts, more)
    flat = [(name, one) for part in parts for name, one in part.items()]
    size = -(-len(flat) // files)
    placed: dict[str, str] = {}
    for number in range(files):
        file = f"model-{number + 1:05d}-of-{files:06d}.safetensors"
        some = dict(flat[number * size : (number + 1) * size])
        write_file(folder / file, some)
        placed |= dict.fromkeys(some, file)
    total = sum(one.nbytes for _, one in flat)
    index = {"metadata": {"total_size": total}, "weight_map": placed}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index, indent=2))
    (folder / "config.json").write_text(json.dumps(config(layers, experts, more), indent=2))
    return folder


def write_file(path: Path, some: dict[str, Tensor]) -> None:
    """Write tensors in their order: the library takes ten times as long for small ones."""
    header, start = {}, 0
    for name, one in some.items():
        offsets = [start, start := start + one.nbytes]
        header[name] = {"dtype": KINDS[one.dtype], "shape": [*one.shape], "data_offsets": offsets}
    text = json.dumps(header).encode()
    with path.open("wb") as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for one in some.values():
            file.write(one.view(torch.uint8).numpy().tobytes())


if __name__ == "__main__":
    write_model(Path(sys.argv[1]))
