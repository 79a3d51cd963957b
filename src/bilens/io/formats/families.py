"""The families of models whose MLPs are read, one table, and the names of activations.

A family is a `model_type` of Hugging Face. Names, order of the branches and the key of the
activation were compared with transformers 5.24, on a small model of each in the tests.
"""

import math
import re
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import Any, get_args

from bilens.algebra.approximation.activation import CLAMPED, Activation, ActivationName
from bilens.base.errors import CheckpointError, NoLayersError, Retry, UsageError
from bilens.io.stored_mlp import Layout, MLPLocation

QUICK = 1.702  # of the quick GELU, t · sigmoid(1.702 t) = silu(1.702 t) / 1.702
QUICK_GELU = "quick_gelu"
UNKNOWN = "ACTIVATION"  # in the place of the name of one that no file says
ACTIVATION_KEYS = ("hidden_act", "hidden_activation", "activation_function", "activation")
SPELLINGS: dict[str, ActivationName] = {
    **{name: name for name in get_args(ActivationName)},
    "linear": "identity",
    "none": "identity",
    "logistic": "sigmoid",
    "swish": "silu",
    "relu2": "squared_relu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_python": "gelu",
    QUICK_GELU: "silu",
}


@dataclass(frozen=True)
class NamedActivation:
    """An activation as somebody named it: φ(scale · t) / scale with our φ."""

    phi: Activation
    scale: float = 1.0

    def __str__(self) -> str:
        if self.scale == 1:
            return str(self.phi)
        return f"{self.phi} with {self.scale:g} in the weights (quick GELU)"


def activation_in(content: Mapping[str, Any]) -> str:
    """Return the activation that a `config.json` names, or a blank that somebody fills in."""
    for key in ACTIVATION_KEYS:
        with suppress(UsageError):
            activation_named(content.get(key))
            return str(content[key])
    return UNKNOWN


def activation_named(text: object) -> NamedActivation:
    """Return the activation of a name; "leaky_relu:0.2" has a slope."""
    if isinstance(text, Activation):
        return NamedActivation(text)
    if not isinstance(text, str):
        raise UsageError(f"activation is a {type(text).__name__}; expected a name such as relu.")
    name, colon, slope = text.strip().lower().partition(":")
    found = SPELLINGS.get(name)
    if found is None:
        raise UsageError(
            f"activation {text!r} is not known: use one of {', '.join(SPELLINGS)}; leaky_relu:0.2 "
            "has a slope."
        )
    if not colon:
        return NamedActivation(Activation(found), QUICK if name == QUICK_GELU else 1.0)
    try:
        number = float(slope)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"activation {text!r}: {slope!r} is no slope: expected a number, as in leaky_relu:0.2."
        )
    try:
        return NamedActivation(Activation(found, number))
    except UsageError as error:
        raise UsageError(f"activation {text!r}: {error}") from error


# Gated: the branch with the activation first.
SEPARATE = Layout("gate_proj", "up_proj", "down_proj")
FUSED = Layout("gate_up_proj", "gate_up_proj", "down_proj")  # gate first
TURNS = Layout("gate_up_proj", "gate_up_proj", "down_proj", True, True, "_bias")
MODERNBERT = Layout("Wi", "Wi", "Wo")  # the half that the code calls `input` is activated
T5 = Layout("wi_0", "wi_1", "wo")
MIXTRAL = Layout("w1", "w3", "w2")
# Ordinary: one branch.
T5_ORDINARY = Layout(None, "wi", "wo")
FC = Layout(None, "fc1", "fc2")
C_FC = Layout(None, "c_fc", "c_proj")
TO_4H = Layout(None, "dense_h_to_4h", "dense_4h_to_h")

# What the MLP receives: the weights are as stored, so a gain of the norm before is in the input.
RMS = "the residual stream behind an RMSNorm, times its gain"
LAYER = "the residual stream behind a LayerNorm, with its gain and bias"
WITHOUT_BIAS = "the residual stream behind a LayerNorm, with its gain"
PLAIN = "the residual stream behind a LayerNorm without a gain"
ITSELF = "the residual stream itself"
LESS_ONE = ", stored less one"
AFTER = "; the norm behind the MLP is not part of the layer"
SHARED = ", which the attention reads too"

ROOTS = ("model.language_model.", "language_model.model.")  # of models that read images too
IN_T5 = re.compile(r"(?:encoder|decoder)\.block\.\d+\.layer\.\d+\.DenseReluDense\.")


@dataclass(frozen=True)
class Home:
    """The place of the MLP of each layer among the modules and the tensors."""

    layout: Layout = SEPARATE  # the names of its linear maps, below `inner`
    stack: str = "layers"  # what holds the layers
    inner: str = "mlp"  # what holds the maps in a layer; empty where the layer itself does
    # what transformers runs one behind the other; none for `inner` alone
    modules: tuple[str, ...] = ("",)

    def name(self, index: int) -> str:
        """Return the path of an MLP, which is the name of the layer."""
        return f"{self.stack}.{index}" + (f".{self.inner}" if self.inner else "")

    def location(self, root: str, index: int, bias: bool) -> MLPLocation:
        return self.layout.at(self.name(index), f"{root}{self.name(index)}.", bias)


@dataclass(frozen=True)
class ExpertLayout:
    counts: tuple[str, ...]  # the keys that the number of experts may stand under
    each: Layout = SEPARATE  # the layout of one expert
    module: str = "mlp"  # what holds the experts on the disk, where it is not called `mlp`
    shared: str | None = None  # an expert that every token passes, if there is one
    # tensors beside the experts, which are not read; a router first
    others: tuple[str, ...] = ("gate.weight",)
    stacked: Layout = FUSED  # of stacks of all
    bias: bool = False  # whether those have biases


@dataclass(frozen=True)
class Family:
    homes: tuple[Home, ...] = (Home(),)  # where they may lie, on the disk or in memory
    about_input: str = RMS  # what an MLP receives, in words
    # the key of the activation in `config.json`; empty where the family has one alone
    activation_key: str = "hidden_act"
    activation: str = "silu"  # what the activation is where the file does not say
    # names of activations that mean another one in old files
    legacy: Mapping[str, str] = field(default_factory=dict)
    bias: bool = False  # whether there are biases where the file does not say
    bias_key: str | None = None  # the key that says it; None where nothing does
    root: str = "model"  # what the names begin with in a model with a head
    # the keys of the number of layers and of the width
    sizes: tuple[str, str] = ("num_hidden_layers", "hidden_size")
    experts: ExpertLayout | None = None  # of its mixtures, in layers that have one
    # the key that says whether the norm is before the MLP, not behind it
    norm_first: str | None = None
    is_t5: bool = False  # whether the layers lie as in T5, in an encoder and a decoder

    @cached_property
    def patterns(self) -> list[re.Pattern[str]]:
        """Patterns of the tensor names of an MLP: root, layer, and the beginning of the rest."""
        if self.is_t5:
            return [IN_T5]
        roots = "|".join(map(re.escape, (*ROOTS, f"{self.root}.", "")))
        found = []
        for home in self.homes:
            inner = re.escape(home.inner) + r"\."
            if self.experts is not None:
                inner = rf"(?:mlp|{self.experts.module})\."
            if not home.inner:
                maps = "|".join(map(re.escape, (home.layout.up, home.layout.down)))
                inner = rf"(?:{maps})\."
            found.append(re.compile(rf"({roots}){re.escape(home.stack)}\.(\d+)\.{inner}"))
        return found


def gated(layout: Layout, about: str = RMS, key: str = "hidden_act", **more: Any) -> Family:
    return Family((Home(layout),), about, key, **more)


def ordinary(
    home: Home, activation: str = "gelu", about: str = LAYER, *, bias: bool = True, **more: Any
) -> Family:
    return Family((home,), about, activation=activation, bias=bias, **more)


GEMMA = Family(
    about_input=RMS + LESS_ONE + AFTER,
    activation_key="hidden_activation",
    activation="gelu_pytorch_tanh",
)
T5_FAMILY = gated(T5, RMS, "feed_forward_proj", activation="relu", is_t5=True)
MANY = ExpertLayout(("num_experts", "num_local_experts"))
GPT: dict[str, Any] = {"root": "transformer", "activation_key": "activation_function"}
N_LAYER = ("n_layer", "n_embd")
ENCODER = Home(
    Layout(None, "intermediate.dense", "output.dense"),
    "encoder.layer",
    "",
    ("intermediate", "output.dense"),
)
BERT = ordinary(ENCODER, "gelu", LAYER + AFTER)
VISION = Family((ENCODER, Home(FC)), LAYER, activation="gelu", bias=True)


WITH_IMAGES = {"gemma3": "gemma3_text"}  # whose `text_config` is a language model of the table
FAMILIES: dict[str, Family] = {
    "llama": Family(bias_key="mlp_bias"),
    **dict.fromkeys(("mistral", "qwen2", "qwen3"), Family()),
    "olmo": Family(about_input=PLAIN),
    "olmo2": Family(about_input=ITSELF + AFTER),
    "smollm3": Family(bias_key="mlp_bias"),
    "granite": Family(
        about_input=RMS + "; what the layer gives is multiplied by residual_multiplier afterwards",
        bias_key="mlp_bias",
    ),
    "cohere": Family(about_input=WITHOUT_BIAS + SHARED),
    "stablelm": Family(about_input=LAYER),
    "gemma": Family(
        about_input=RMS + LESS_ONE,
        activation="gelu_pytorch_tanh",
        legacy={"gelu": "gelu_pytorch_tanh"},
    ),
    "gemma2": GEMMA,
    "gemma3_text": GEMMA,
    "phi3": gated(FUSED),
    "glm": gated(FUSED),
    "glm4": gated(FUSED, RMS + AFTER),
    "modernbert": gated(
        MODERNBERT, LAYER, "hidden_activation", activation="gelu", bias_key="mlp_bias"
    ),
    **dict.fromkeys(("t5", "mt5", "umt5"), T5_FAMILY),
    "mixtral": Family(experts=ExpertLayout(("num_local_experts",), MIXTRAL, "block_sparse_moe")),
    "qwen2_moe": Family(
        experts=ExpertLayout(
            ("num_experts", "num_local_experts"),
            shared="shared_expert",
            others=("gate.weight", "shared_expert_gate.weight"),
        )
    ),
    "qwen3_moe": Family(experts=MANY),
    "olmoe": Family(experts=MANY),
    "deepseek_v3": Family(
        experts=ExpertLayout(
            ("n_routed_experts", "num_local_experts"),
            shared="shared_experts",
            others=("gate.weight", "gate.e_score_correction_bias"),
        )
    ),
    "gpt_oss": Family(
        activation_key="",
        activation=CLAMPED,
        experts=ExpertLayout(
            ("num_local_experts", "num_experts"),
            stacked=TURNS,
            bias=True,
            others=("router.weight", "router.bias"),
        ),
    ),
    "gpt2": ordinary(
        Home(Layout(None, "c_fc", "c_proj", transposed=True), "h"), "gelu_new", sizes=N_LAYER, **GPT
    ),
    "gpt_bigcode": ordinary(Home(C_FC, "h"), "gelu_pytorch_tanh", sizes=N_LAYER, **GPT),
    "gpt_neo": ordinary(Home(C_FC, "h"), "gelu_new", sizes=("num_layers", "hidden_size"), **GPT),
    "gptj": ordinary(
        Home(Layout(None, "fc_in", "fc_out"), "h"), "gelu_new", LAYER + SHARED, sizes=N_LAYER, **GPT
    ),
    "gpt_neox": ordinary(Home(TO_4H), root="gpt_neox"),
    "falcon": ordinary(
        Home(TO_4H, "h"),
        bias=False,
        bias_key="bias",
        root="transformer",
        activation_key="activation",
    ),
    "phi": ordinary(Home(FC), "gelu_new", LAYER + SHARED),
    "starcoder2": ordinary(Home(C_FC), "gelu_pytorch_tanh", bias_key="use_bias"),
    "nemotron": ordinary(
        Home(Layout(None, "up_proj", "down_proj")),
        "relu2",
        WITHOUT_BIAS + LESS_ONE + ", and its bias",
        bias=False,
        bias_key="mlp_bias",
    ),
    "opt": ordinary(
        Home(FC, "decoder.layers", "", ("fc1", "activation_fn", "fc2")),
        "relu",
        bias_key="enable_bias",
        activation_key="activation_function",
        norm_first="do_layer_norm_before",
    ),
    "bert": replace(BERT, root="bert"),
    "roberta": replace(BERT, root="roberta"),
    "xlm-roberta": replace(BERT, root="roberta"),
    "electra": replace(BERT, root="electra"),
    "distilbert": ordinary(
        Home(Layout(None, "lin1", "lin2"), "transformer.layer", "ffn"),
        "gelu",
        LAYER + AFTER,
        root="distilbert",
        activation_key="activation",
        sizes=("n_layers", "dim"),
    ),
    "vit": replace(VISION, root="vit"),
    "deit": replace(VISION, root="deit"),
}


def refuse_config(path: Path, content: Mapping[str, Any]) -> None:
    """Refuse a model for what its `config.json` says."""
    if content.get("auto_map"):
        raise CheckpointError(
            f"{path}: the model needs code of its own (auto_map), which is never run: load it "
            "from a folder that a model class inside transformers has saved."
        )


def unknown_model(folder: Path, content: Mapping[str, Any]) -> NoLayersError:
    """Return why a model of a type that is not in the table is not read."""
    blank = {"up": "TENSOR", "down": "TENSOR"}
    said = {"roles": blank, "activation": activation_in(content)}
    return NoLayersError(
        f"{folder}: the model is of the type {content.get('model_type')!r}, which is not known: "
        "names alone do not say which branch has the activation, nor whether there is more to it. "
        f"{what_is_read()} Of another one, say which tensor is what, and the activation.",
        [Retry(str(folder), said)],
    )


def what_is_read() -> str:
    return f"MLPs are read of the types {', '.join(sorted({*FAMILIES, *WITH_IMAGES}))}."
