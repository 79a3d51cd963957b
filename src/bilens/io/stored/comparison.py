"""An MLP as it was read, against transformers' own module or the formula of its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.algebra.approximation.layer_weights import in_float64
from bilens.io.stored.families import FAMILIES
from bilens.io.stored.gated_tensors import GatedTensors, Layout
from bilens.io.stored.places import Place
from bilens.io.stored.tensor import Store, StoredTensor
from bilens.nn.agreement import Agreement, agrees, together

Run = Callable[[Tensor], Tensor]
FIRST = "layers.0.mlp"
TEXTS = ("hidden_act", "hidden_activation", "feed_forward_proj")  # the texts that an MLP needs
NAIVE: dict[str, Run] = {
    "identity": lambda t: t,
    "relu": functional.relu,
    "squared_relu": lambda t: functional.relu(t) ** 2,
    "leaky_relu": functional.leaky_relu,
    "gelu": functional.gelu,
    "gelu_tanh": lambda t: functional.gelu(t, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def compare_with_source(
    content: Mapping[str, Any],
    store: Store,
    place: Place,
    activation: str,
    read: Callable[[], Run],
    gain: Tensor | None = None,
) -> Agreement:
    """Return how far an MLP, as it was read, is what the model computes.

    The source is the module of transformers, filled with the tensors of this layer alone, where
    the package is installed and knows the model; the formula of the family otherwise.

    Args:
        content: the model's `config.json`.
        store: its tensors.
        place: the MLP.
        activation: φ, by our name.
        read: makes the function that was read, in float64.
        gain: (in,), that its weights contain and the source's do not; None for none.

    Raises:
        NumericalError: If it is another function.
    """
    raw = {
        name.removeprefix(place.prefix).removesuffix(".weight"): read_raw(store, name, place.expert)
        for name in place.tensors()
    }
    layout = place.layout
    source, run = "the formula of its family", by_the_formula(layout, raw, activation)
    theirs = module_of_transformers(content, place, raw)
    if theirs is not None:
        source, run = theirs
    d_in = raw[layout.gate].shape[1]
    return agrees(place.name, source, d_in, read(), lambda x: run(x if gain is None else gain * x))


def read_raw(store: Store, name: str, expert: int | None) -> Tensor:
    """Return a tensor in float64 as it lies in the file, one expert's of a stack."""
    stored = store[name]
    return (stored if expert is None else stored.one(expert)).read().double()


def by_the_formula(layout: Layout, raw: Mapping[str, Tensor], activation: str) -> Run:
    """Return down(φ(gate x) ∘ value x) straight from the tensors; branches are cut as outputs."""
    phi = NAIVE[activation]

    def linear(name: str, x: Tensor) -> Tensor:
        return functional.linear(x, raw[name], raw.get(f"{name}.bias"))

    def run(x: Tensor) -> Tensor:
        if layout.fused:
            gate, value = linear(layout.gate, x).chunk(2, dim=-1)
        else:
            gate, value = linear(layout.gate, x), linear(layout.value, x)
        return linear(layout.down, phi(gate) * value)

    return run


def module_of_transformers(
    content: Mapping[str, Any], place: Place, raw: Mapping[str, Tensor]
) -> tuple[str, Run] | None:
    """Return the module that transformers would run, filled; None where it cannot be had."""
    path, is_expert, _ = place.name.partition(".experts.")
    run: Run
    try:
        if is_expert:
            module = blank_module(content, f"{path}.experts", experts_implementation="eager")
            run = one_expert(module, place.layout, raw)
        else:
            run = module = blank_module(content, path).eval()
            ends = {name: "" if name.endswith(".bias") else ".weight" for name in raw}
            state = {f"{name}{end}": raw[name] for name, end in ends.items()}
            module.load_state_dict(state, strict=True, assign=True)
        run(torch.zeros(1, raw[place.layout.gate].shape[1], dtype=torch.float64))
    except Exception:  # another version may not have the package, the model or these names
        return None
    return f"transformers' {type(module).__name__}", run


def blank_module(content: Mapping[str, Any], path: str, **options: str) -> nn.Module:
    """Return a part of the model that transformers builds, without weights."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(content["model_type"], **harmless(content))
    with torch.device("meta"):
        options["attn_implementation"] = "eager"
        model: nn.Module = AutoModel.from_config(config, **options)  # type: ignore[no-untyped-call]
    return model.get_submodule(path)


def harmless(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return what of an untrusted configuration is handed on to transformers: numbers.

    A text can name code, such as a kernel of the hub, which transformers would load and run.
    """

    def is_number(value: object) -> bool:
        return value is None or isinstance(value, int | float)

    return {
        key: value
        for key, value in content.items()
        if (key in TEXTS and isinstance(value, str))
        or is_number(value)
        or (isinstance(value, list) and all(map(is_number, value)))
    }


def one_expert(module: Any, layout: Layout, raw: Mapping[str, Tensor]) -> Run:
    """Return the experts of transformers with one expert in the stack, which every input takes."""
    both = [raw[name] for name in dict.fromkeys((layout.gate, layout.value))]
    module.num_experts = 1
    module.gate_up_proj = nn.Parameter(torch.cat(both)[None])
    module.down_proj = nn.Parameter(raw[layout.down][None])

    def run(x: Tensor) -> Tensor:
        first = torch.zeros(len(x), 1, dtype=torch.long)
        found: Tensor = module(x, first, torch.ones(len(x), 1, dtype=x.dtype))
        return found

    return run


def compare_ends(layers: Mapping[str, GatedTensors], model_type: str) -> Agreement:
    """Return how far the first and the last MLP out of another format are what they stand for.

    Args:
        layers: of the model, in order.
        model_type: of Hugging Face.

    Raises:
        NumericalError: If one is another function.
    """
    names = [*layers]
    ends = dict.fromkeys((names[0], names[-1]))
    return together(compare_with_family(name, layers[name], model_type) for name in ends)


def compare_with_family(name: str, tensors: GatedTensors, model_type: str) -> Agreement:
    """Return how far an MLP out of another format is what transformers computes with its weights.

    The file names neither activation nor order of the branches: both are the library's own, for
    the type of model that the format stands for. An expert is compared with the formula.

    Args:
        name: of the layer.
        tensors: of it.
        model_type: of Hugging Face.

    Raises:
        NumericalError: If it is another function.
    """
    roles = ("gate", "value", "down", "gate_bias", "value_bias", "down_bias")
    parts: dict[str, StoredTensor | None] = {role: getattr(tensors, role) for role in roles}
    raw = {
        role.replace("_", "."): part.read().double()
        for role, part in parts.items()
        if part is not None
    }
    layout = Layout("gate", "value", "down")
    source, run = "the formula of its family", by_the_formula(layout, raw, tensors.activation.name)
    if ".experts." not in name:
        layout = FAMILIES[model_type].layout
        content = {
            "model_type": model_type,
            "hidden_size": tensors.sizes.d_in,
            "intermediate_size": tensors.sizes.d_hidden,
            "mlp_bias": tensors.gate_bias is not None,
            **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1),
        }
        theirs = module_of_transformers(content, Place(FIRST, "", layout), renamed(raw, layout))
        source, run = theirs or (source, run)
    return agrees(name, source, tensors.sizes.d_in, in_float64(tensors.read()), run)


def renamed(raw: Mapping[str, Tensor], layout: Layout) -> dict[str, Tensor]:
    """Return the tensors of an MLP under the names of a family, its branches in one if they are."""
    found = {}
    for end in ("", ".bias"):
        if f"gate{end}" not in raw:
            continue
        gate, value = raw[f"gate{end}"], raw[f"value{end}"]
        found[f"{layout.gate}{end}"] = torch.cat([gate, value]) if layout.fused else gate
        if not layout.fused:
            found[f"{layout.value}{end}"] = value
        found[f"{layout.down}{end}"] = raw[f"down{end}"]
    return found
