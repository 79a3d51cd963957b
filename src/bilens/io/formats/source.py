"""An MLP as it was read, against transformers' own module."""

from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from typing import Any

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.layer_weights import in_float64
from bilens.io.formats.families import FAMILIES
from bilens.io.stored_mlp import Layout, MLPLocation, Store, StoredMLP
from bilens.nn.agreement import Agreement, agrees, together

Run = Callable[[Tensor], Tensor]
# The texts of a configuration that an MLP needs: its activation.
TEXTS = {family.activation_key for family in FAMILIES.values()}
# Of no use to an MLP, and worth a warning where they do not fit each other.
TOKENS = ("vocab_size", "bos_token_id", "eos_token_id", "pad_token_id")
KINDS_OF_ATTENTION = ("global", "local")  # of GPT-Neo
Module = tuple[str, Layout, tuple[str, ...]]  # its path, its maps, what is run one behind the other


def compare_with_source(
    store: Store,
    location: MLPLocation,
    content: Mapping[str, Any],
    modules: Iterable[Module],
    read: Run,
    gain: Tensor | None = None,
) -> Agreement | None:
    """Return how far an MLP, as it was read, is what the model computes.

    None where transformers is not installed, or has no such model: nothing else knows.
    """
    raw = raw_tensors(store, location)
    theirs = module_of_transformers(content, location, modules, raw)
    if theirs is None:
        return None
    source, run = theirs
    width = raw["up"].shape[0 if location.transposed else 1]
    return agrees(
        location.name, source, width, read, lambda x: run(x if gain is None else gain * x)
    )


def all_of(found: Iterable[Agreement | None]) -> Agreement | None:
    """Return several comparisons as one; None where one of them could not be made."""
    found = [*found]
    made = [one for one in found if one is not None]
    return together(made) if len(made) == len(found) else None


def raw_tensors(store: Store, location: MLPLocation) -> dict[str, Tensor]:
    """Return role → tensor in float64 as it lies in the file, one expert's of a stack."""
    found = {role: store[name] for role, name in location.named()}
    if location.fused:
        found = {role: tensor for role, tensor in found.items() if not role.startswith("gate")}
    if location.index is not None:
        found = {role: stack.at_index(location.index) for role, stack in found.items()}
    return {role: tensor.read_tensor().double() for role, tensor in found.items()}


def module_of_transformers(
    content: Mapping[str, Any],
    location: MLPLocation,
    modules: Iterable[Module],
    raw: Mapping[str, Tensor],
) -> tuple[str, Run] | None:
    """Return the module that transformers would run, filled, and its name; None without one."""
    width = raw["up"].shape[0 if location.transposed else 1]
    for module in modules:
        # another version may not have the package, the model or these names
        with suppress(Exception):
            named, run = filled(content, location, module, raw)
            run(torch.zeros(1, width, dtype=torch.float64))
            return named, run
    return None


def filled(
    content: Mapping[str, Any], location: MLPLocation, module: Module, raw: Mapping[str, Tensor]
) -> tuple[str, Run]:
    path, layout, parts = module
    home, is_expert, _ = path.partition(".experts.")
    if is_expert:
        experts = blank_module(content, f"{home}.experts", experts_implementation="eager")
        return f"transformers' {type(experts).__name__}", one_expert(experts, location, raw)
    whole = blank_module(content, path)
    maps = {"gate": layout.gate, "up": layout.up, "down": layout.down}
    state = {}
    for role, tensor in raw.items():
        matrix = role.removesuffix("_bias")
        state[f"{maps[matrix]}.{'weight' if matrix == role else 'bias'}"] = tensor
    chain = []
    for part in parts:
        one = whole.get_submodule(part).eval()
        start = f"{part}." if part else ""
        own = {key.removeprefix(start): t for key, t in state.items() if key.startswith(start)}
        one.load_state_dict(own, strict=True, assign=True)
        chain.append(one)

    def run(x: Tensor) -> Tensor:
        for one in chain:
            x = one(x)
        return x

    return f"transformers' {type(whole).__name__}", run


def blank_module(content: Mapping[str, Any], path: str, **options: str) -> nn.Module:
    """Return a part of the model that transformers builds, without weights."""
    from transformers import AutoConfig, AutoModel

    config = AutoConfig.for_model(content["model_type"], **harmless(content))
    with torch.device("meta"):
        options["attn_implementation"] = "eager"
        model: nn.Module = AutoModel.from_config(config, **options)
    return model.get_submodule(path)


def harmless(content: Mapping[str, Any]) -> dict[str, Any]:
    """Return the entries of an untrusted configuration that transformers may get: numbers."""

    def is_harmless(value: object) -> bool:
        if isinstance(value, list):
            return all(map(is_harmless, value))
        return value is None or isinstance(value, int | float) or value in KINDS_OF_ATTENTION

    return {
        key: value
        for key, value in content.items()
        if key not in TOKENS and ((key in TEXTS and isinstance(value, str)) or is_harmless(value))
    }


def one_expert(module: Any, location: MLPLocation, raw: Mapping[str, Tensor]) -> Run:
    """Return the experts of transformers with one expert in the stack, which every input takes."""
    both = raw["up"] if location.fused else torch.cat([raw["gate"], raw["up"]])
    module.num_experts = 1
    module.gate_up_proj = nn.Parameter(both[None])
    module.down_proj = nn.Parameter(raw["down"][None])
    if "up_bias" in raw:
        module.gate_up_proj_bias = nn.Parameter(raw["up_bias"][None])
        module.down_proj_bias = nn.Parameter(raw["down_bias"][None])

    def run(x: Tensor) -> Tensor:
        first = torch.zeros(len(x), 1, dtype=torch.long)
        found: Tensor = module(x, first, torch.ones(len(x), 1, dtype=x.dtype))
        return found

    return run


def compare_ends(
    store: Store, layers: Mapping[str, tuple[MLPLocation, StoredMLP]], kind: str
) -> Agreement | None:
    """Return how far the first and the last MLP are what transformers computes in such a model.

    The file names neither activation nor order of the branches: both are the library's own, for
    the type of model that the format stands for. An expert is compared with nothing.
    """
    home, names = FAMILIES[kind].homes[0], [*layers]
    found = []
    for location, stored in map(layers.__getitem__, dict.fromkeys((names[0], names[-1]))):
        content = {
            "model_type": kind,
            "hidden_size": stored.sizes.d_in,
            "intermediate_size": stored.sizes.d_hidden,
            "mlp_bias": "up_bias" in stored.parts,
            **dict.fromkeys(("num_hidden_layers", "num_attention_heads", "num_key_value_heads"), 1),
        }
        whole = ".experts." not in location.name
        modules = [(home.name(0), home.layout, home.modules)] if whole else []
        read = in_float64(stored.read_layer())
        found.append(compare_with_source(store, location, content, modules, read))
    return all_of(found)
