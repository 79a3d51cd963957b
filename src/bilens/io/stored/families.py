"""The families of language models whose gated MLPs are read: one table, and nothing else.

A family is a `model_type` of Hugging Face. Names, order of the branches and the key of the
activation were compared with transformers 5.24, on a small model of each in the tests.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bilens.algebra.approximation.activation import ActivationName
from bilens.io.stored.gated_tensors import Layout

SEPARATE = Layout("gate_proj", "up_proj", "down_proj")
FUSED = Layout("gate_up_proj", "gate_up_proj", "down_proj")  # gate first
MODERNBERT = Layout("Wi", "Wi", "Wo")  # the half that the code calls `input` is activated
T5 = Layout("wi_0", "wi_1", "wo")
MIXTRAL = Layout("w1", "w3", "w2")

ACTIVATIONS: dict[str, ActivationName] = {
    "linear": "identity",
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "relu2": "squared_relu",
    "leaky_relu": "leaky_relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
}

# What the MLP receives: the weights are as stored, so a gain of the norm before is in the input.
RMS = "the residual stream behind an RMSNorm, times its gain"
LAYER = "the residual stream behind a LayerNorm, with its gain and bias"
PLAIN = "the residual stream behind a LayerNorm without a gain"
AFTER = "; the norm behind the MLP is not part of the layer"


@dataclass(frozen=True)
class Experts:
    """How the experts of a mixture are named.

    Attributes:
        counts: the keys that the number of experts may stand under.
        each: the layout of one expert.
        module: what holds the experts on the disk, where it is not called `mlp`.
        shared: an expert that every token passes, if there is one.
        others: tensors beside the experts, which are not read; a router first.
    """

    counts: tuple[str, ...]
    each: Layout = SEPARATE
    module: str = "mlp"
    shared: str | None = None
    others: tuple[str, ...] = ("gate.weight",)


@dataclass(frozen=True)
class Family:
    """How the MLPs of a family are stored.

    Attributes:
        layout: the names of its linear maps.
        about_input: what an MLP receives, in words.
        activation_key: the key of the activation in `config.json`.
        activation: what the activation is where the file does not say.
        legacy: names of activations that mean another one in old files.
        bias_key: the key that says whether there are biases; None where there are none.
        experts: of its mixtures, in layers that have one.
        is_t5: whether the layers lie as in T5, in an encoder and a decoder.
    """

    layout: Layout = SEPARATE
    about_input: str = RMS
    activation_key: str = "hidden_act"
    activation: str = "silu"
    legacy: Mapping[str, str] = field(default_factory=dict)
    bias_key: str | None = None
    experts: Experts | None = None
    is_t5: bool = False


GEMMA = Family(
    about_input=RMS + AFTER, activation_key="hidden_activation", activation="gelu_pytorch_tanh"
)
T5_FAMILY = Family(T5, RMS, "feed_forward_proj", "relu", is_t5=True)
MANY = Experts(("num_experts", "num_local_experts"))
WITH_IMAGES = {"gemma3": "gemma3_text"}  # whose `text_config` is a language model of the table
FAMILIES: dict[str, Family] = {
    "llama": Family(bias_key="mlp_bias"),
    "mistral": Family(),
    "qwen2": Family(),
    "qwen3": Family(),
    "olmo": Family(about_input=PLAIN),
    "olmo2": Family(about_input="the residual stream itself" + AFTER),
    "smollm3": Family(bias_key="mlp_bias"),
    "granite": Family(
        about_input=RMS + "; what the layer gives is multiplied by residual_multiplier afterwards",
        bias_key="mlp_bias",
    ),
    "cohere": Family(about_input=LAYER + ", which the attention reads too"),
    "stablelm": Family(about_input=LAYER),
    "gemma": Family(activation="gelu_pytorch_tanh", legacy={"gelu": "gelu_pytorch_tanh"}),
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi3": Family(FUSED),
    "glm": Family(FUSED),
    "glm4": Family(FUSED, RMS + AFTER),
    "modernbert": Family(MODERNBERT, LAYER, "hidden_activation", "gelu", bias_key="mlp_bias"),
    "t5": T5_FAMILY,
    "mt5": T5_FAMILY,
    "umt5": T5_FAMILY,
    "mixtral": Family(experts=Experts(("num_local_experts",), MIXTRAL, "block_sparse_moe")),
    "qwen2_moe": Family(
        experts=Experts(
            ("num_experts", "num_local_experts"),
            shared="shared_expert",
            others=("gate.weight", "shared_expert_gate.weight"),
        )
    ),
    "qwen3_moe": Family(experts=MANY),
    "olmoe": Family(experts=MANY),
    "deepseek_v3": Family(
        experts=Experts(
            ("n_routed_experts", "num_local_experts"),
            shared="shared_experts",
            others=("gate.weight", "gate.e_score_correction_bias"),
        )
    ),
}
