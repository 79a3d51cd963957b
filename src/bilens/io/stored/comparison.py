"""An MLP as it was read, against transformers' own module or the formula of its family."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from bilens.algebra.closest.layer_weights import in_float64
from bilens.io.exactness import Exactness, compare
from bilens.io.stored.gated_tensors import GatedTensors, Layout
from bilens.io.stored.places import Place
from bilens.io.stored.tensor import Store

Run = Callable[[Tensor], Tensor]
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
) -> Exactness:
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
    return compare(place.name, source, d_in, read(), lambda x: run(x if gain is None else gain * x))


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


def compare_with_formula(name: str, tensors: GatedTensors) -> Exactness:
    """Return how far an MLP, as it was read, is the formula of its family.

    Raises:
        NumericalError: If it is another function.
    """
    raw: Mapping[str, Tensor] = {
        role: part.read().double()
        for role, part in (
            ("gate", tensors.gate),
            ("value", tensors.value),
            ("down", tensors.down),
            ("gate.bias", tensors.gate_bias),
            ("value.bias", tensors.value_bias),
            ("down.bias", tensors.down_bias),
        )
        if part is not None
    }
    run = by_the_formula(Layout("gate", "value", "down"), raw, tensors.activation.name)
    layer = in_float64(tensors.read())
    return compare(name, "the formula of its family", tensors.sizes.d_in, layer, run)
