"""Small language models of transformers, one of each family, with random weights."""

import json
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

D, H, LAYERS = 8, 12, 2
BASE: dict[str, Any] = {
    "vocab_size": 16,
    "hidden_size": D,
    "intermediate_size": H,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 16,
    "pad_token_id": 0,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
T5_SIZES = {
    "vocab_size": 16,
    "d_model": D,
    "d_ff": H,
    "d_kv": 4,
    "num_layers": LAYERS,
    "num_decoder_layers": 1,
    "num_heads": 2,
    "feed_forward_proj": "gated-gelu",
}
LATENT = {
    "q_lora_rank": 4,
    "kv_lora_rank": 4,
    "qk_rope_head_dim": 4,
    "qk_nope_head_dim": 4,
    "v_head_dim": 4,
    "moe_intermediate_size": 6,
    "n_routed_experts": 4,
    "num_experts_per_tok": 2,
    "n_group": 2,
    "topk_group": 1,
    "first_k_dense_replace": 1,
}
FAMILIES: dict[str, dict[str, Any]] = {
    "llama": {"mlp_bias": True, "attention_bias": True},
    "mistral": {},
    "qwen2": {},
    "qwen3": {"head_dim": 4},
    "olmo": {},
    "olmo2": {},
    "smollm3": {"mlp_bias": True},
    "granite": {"mlp_bias": True},
    "cohere": {},
    "stablelm": {},
    "gemma": {"head_dim": 4},
    "gemma2": {"head_dim": 4},
    "gemma3_text": {"head_dim": 4},
    "phi3": {},
    "glm": {"head_dim": 4},
    "glm4": {"head_dim": 4},
    "modernbert": {"mlp_bias": True},
    "t5": T5_SIZES,
    "mt5": T5_SIZES,
    "umt5": T5_SIZES,
    "mixtral": {"num_local_experts": 3, "num_experts_per_tok": 2},
    "qwen2_moe": {
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 6,
        "shared_expert_intermediate_size": 10,
        "mlp_only_layers": [0],
    },
    "qwen3_moe": {
        "num_experts": 3,
        "num_experts_per_tok": 2,
        "moe_intermediate_size": 6,
        "mlp_only_layers": [0],
        "head_dim": 4,
    },
    "olmoe": {"num_experts": 3, "num_experts_per_tok": 2},
    "deepseek_v3": LATENT,
    "gpt_oss": {
        "num_local_experts": 2,
        "num_experts_per_tok": 1,
        "head_dim": 4,
        "rope_parameters": {"rope_type": "default", "rope_theta": 1e4},
    },
}
N_LAYER = {"n_embd": D, "n_inner": H, "n_layer": LAYERS, "n_head": 2}
IMAGES = {"image_size": 8, "patch_size": 4}
ORDINARY: dict[str, dict[str, Any]] = {
    "gpt2": N_LAYER,
    "gpt_bigcode": N_LAYER,
    "gpt_neo": {"num_layers": LAYERS, "num_heads": 2, "attention_types": [[["global"], LAYERS]]},
    "gptj": {**N_LAYER, "rotary_dim": 4},
    "gpt_neox": {},
    "falcon": {"ffn_hidden_size": H, "bias": True},
    "phi": {},
    "starcoder2": {},
    "nemotron": {"mlp_bias": True},
    "opt": {"ffn_dim": H, "word_embed_proj_dim": D},
    "bert": {},
    "roberta": {},
    "xlm-roberta": {},
    "electra": {},
    "distilbert": {"dim": D, "hidden_dim": H, "n_layers": LAYERS, "n_heads": 2},
    "vit": IMAGES,
    "deit": IMAGES,
}
FAMILIES |= ORDINARY
LINEAR = {  # how each says that there is no activation
    "gemma2": {"hidden_activation": "linear"},
    "gemma3_text": {"hidden_activation": "linear"},
    "modernbert": {"hidden_activation": "linear"},
    **{kind: {"feed_forward_proj": "gated-linear"} for kind in ("t5", "mt5", "umt5")},
    **{k: {"activation_function": "linear"} for k in ("gpt2", "gpt_bigcode", "gpt_neo", "gptj")},
    "opt": {"activation_function": "linear"},
    "falcon": {"activation": "linear"},
    "distilbert": {"activation": "linear"},
}
ENCODERS = ("bert", "roberta", "xlm-roberta", "electra", "distilbert")
HEADS = ("CausalLM", "Seq2SeqLM", "MaskedLM", "ImageClassification")


def make(kind: str, **options: Any) -> Any:
    """A model with a head where it has one, in float64, with weights far from their start."""
    import transformers

    base = {} if "t5" in kind else BASE
    config = transformers.AutoConfig.for_model(kind, **{**base, **FAMILIES[kind], **options})
    for head in HEADS if kind not in ENCODERS else HEADS[2:]:
        auto = getattr(transformers, f"AutoModelFor{head}")
        if type(config) in auto._model_mapping:
            known = auto._model_mapping[type(config)]
            model = known[0](config) if isinstance(known, tuple) else auto.from_config(config)
            break
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
            parameter.copy_(noise / parameter.shape[-1] ** 0.5)
    return model.double().eval()


def write(folder: Path, kind: str, dtype: torch.dtype = torch.float64, **options: Any) -> Any:
    """Save a model; returns it as it was saved, in float64."""
    model = make(kind, **options).to(dtype)
    model.save_pretrained(folder)
    return model.double()


def module_at(model: Any, name: str) -> nn.Module:
    """The module that a layer is named after."""
    found: nn.Module = model.base_model.get_submodule(name)
    return found


def run_mlp(model: Any, name: str, x: Tensor) -> Tensor:
    """What the MLP of transformers gives; of some, the parts of a layer one behind the other."""
    kind = model.config.model_type
    if kind in ("vit", "deit"):
        name = name.replace("encoder.layer", "layers") + ".mlp"
    module: Any = module_at(model, name)
    if kind == "opt":
        y: Tensor = module.fc2(module.activation_fn(module.fc1(x)))
    elif kind in ENCODERS and kind != "distilbert":
        y = module.output.dense(module.intermediate(x))
    else:
        y = module(x)
    return y


def inputs(rows: int = 20) -> Tensor:
    """What an MLP may receive."""
    return torch.randn(rows, D, generator=torch.Generator().manual_seed(7), dtype=torch.float64)


def write_adapter(root: Path, named: str = "../base") -> Path:
    """Save a model as `base`, and beside it an `adapter` of PEFT that names it, or another."""
    from safetensors.torch import save_file

    tensors = write(root / "base", "llama", torch.float32).state_dict()
    d_out, d_in = tensors["model.layers.0.mlp.down_proj.weight"].shape
    name, folder = "base_model.model.model.layers.0.mlp.down_proj", root / "adapter"
    folder.mkdir()
    pair = {
        f"{name}.lora_A.weight": torch.ones(2, d_in),
        f"{name}.lora_B.weight": torch.ones(d_out, 2),
    }
    save_file(pair, folder / "adapter_model.safetensors")
    about = {"peft_type": "LORA", "r": 2, "lora_alpha": 6, "base_model_name_or_path": named}
    (folder / "adapter_config.json").write_text(json.dumps(about))
    return folder
