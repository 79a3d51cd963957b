"""Reading the MLPs of a safetensors file by roles that are given or guessed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights, in_float64
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.errors import CheckpointError, UsageError
from bilens.io.loaded_model import LoadedModel, LoadReport
from bilens.io.mapped.activation_name import activation_named
from bilens.io.mapped.guess import guess_roles
from bilens.io.mapped.orientation import check_axes, orientation, sizes
from bilens.io.mapped.roles import LayerRoles, is_network, parse_roles
from bilens.io.mapped.tensors import open_tensors
from bilens.io.stored.tensor import Store
from bilens.nn.agreement import Agreement, agreement, normal_inputs
from bilens.nn.layer_view import Gives, LayerView, Reads

Activations = str | Activation | list[str | Activation]


@dataclass(frozen=True)
class Said:
    """What a caller says about a file of unknown names.

    Attributes:
        roles: role → tensor; None to have them guessed.
        activation: its name, or one for each layer; None where nothing was said.
        transposed: whether matrices are (in, out); None where the shapes decide it.
    """

    roles: Mapping[str, str] | None = None
    activation: Activations | None = None
    transposed: bool | None = None

    @property
    def anything(self) -> bool:
        """Whether the caller said anything."""
        return any(part is not None for part in (self.roles, self.activation, self.transposed))


def read_mapped(path: Path, said: Said) -> LoadedModel:
    """Return the MLPs of a file as layers.

    Args:
        path: a safetensors file, or a folder with one or with shards and their index.
        said: what the caller knows of it.

    Raises:
        CheckpointError: If the file is damaged, or has no such tensors, or their shapes do not fit.
        UsageError: If the activation is not said, or roles or shapes leave a choice.
        NonFiniteError: If a tensor holds NaN or infinity.
        NumericalError: If what is read is another function than the tensors in the file.
    """
    named = None if said.roles is None else {*said.roles.values()}
    opened = open_tensors(path, lambda name: named is None or name in named)
    store, found = opened.store, opened.names
    shapes = {name: stored.shape for name, stored in store.items()}
    if said.roles is None:
        layers = guess_roles(path, shapes)
    else:
        layers = parse_roles(path, said.roles, found)
    check_axes(path, layers, shapes)
    check_one_dtype(path, layers, store)
    activations = said_activations(path, layers, said.activation)
    transposed = orientation(path, layers, shapes, said.transposed)
    names = layer_names(layers)
    views, checks = {}, {}
    whole = zip(names, layers, activations, strict=True)
    for index, (name, roles, activation) in enumerate(whole):
        read = partial(read_layer, roles, store, activation, transposed)
        layer = read()
        checks[name] = check_layer(name, layer, roles, store, activation, transposed)
        place = places(index, len(layers), is_network(layers))
        views[name] = view_of(name, layer, read, *place)
    used = {tensor for roles in layers for _, tensor in roles.named()}
    way = "matrices are (in, out)" if transposed else "matrices are (out, in)"
    return LoadedModel(
        None,
        str(path),
        opened.sha256,
        provenance={"format": "safetensors file with named roles"},
        views=views,
        load_report=LoadReport(
            {
                name: f"{roles}; {activation}; {way}"
                for name, roles, activation in zip(names, layers, activations, strict=True)
            },
            said.roles is None,
            checks,
            tuple(f"tensor {name}" for name in found if name not in used),
        ),
    )


def said_activations(
    path: Path, layers: list[LayerRoles], said: Activations | None
) -> list[Activation]:
    """Return the activation of each layer; a file of tensors never says which.

    Raises:
        UsageError: If nothing was said, with what the roles were taken for, or so many names that
            they are neither one nor one for each layer.
    """
    if said is None:
        found = "; ".join(f"layer {index}: {roles}" for index, roles in enumerate(layers[:4]))
        more = f"; and {len(layers) - 4} more" if len(layers) > 4 else ""
        raise UsageError(
            f"{path}: looks like an MLP ({found}{more}), and does not say its activation: pass "
            "activation= (--activation), for example relu, gelu, or identity for a product "
            "without one. Other roles can be said with roles= (--map)."
        )
    parts = said.split(",") if isinstance(said, str) else said
    named = [activation_named(part) for part in (parts if isinstance(parts, list) else [parts])]
    if len(named) not in (1, len(layers)):
        raise UsageError(
            f"{path}: {len(named)} activations are named for {len(layers)} layer(s); expected one, "
            "or one for each."
        )
    return named * len(layers) if len(named) == 1 else named


def check_one_dtype(path: Path, layers: list[LayerRoles], store: Store) -> None:
    """Refuse layers of mixed dtypes.

    Raises:
        CheckpointError: With the dtypes.
    """
    found = {str(store[name].dtype) for layer in layers for _, name in layer.named()}
    if len(found) > 1:
        raise CheckpointError(
            f"{path}: mixes the dtypes {', '.join(sorted(found))}; one was expected: convert the "
            "weights."
        )


def layer_names(layers: list[LayerRoles]) -> list[str]:
    """Return "layer" for a single one, and "layers.0" and so on for several."""
    several = len(layers) > 1
    return [f"layers.{index}" if several else "layer" for index in range(len(layers))]


def read_layer(roles: LayerRoles, store: Store, activation: Activation, transposed: bool) -> Layer:
    """Return one layer as plain weights, read from the file."""

    def matrix(name: str) -> Tensor:
        return store[name].read().T if transposed else store[name].read()

    def vector(name: str | None) -> Tensor | None:
        return None if name is None else store[name].read()

    up = matrix(roles.up)
    down = torch.eye(len(up), dtype=up.dtype) if roles.down is None else matrix(roles.down)
    up_bias, constant = vector(roles.up_bias), vector(roles.down_bias)
    if roles.gate is None:
        return MLPWeights(down, up, activation, up_bias, constant=constant)
    gate, gate_bias = matrix(roles.gate), vector(roles.gate_bias)
    return GLUWeights(down, gate, up, activation, gate_bias, up_bias, constant=constant)


def places(index: int, count: int, network: bool) -> tuple[Reads, Gives]:
    """Return what one of so many layers reads and gives."""
    if not network:
        return "activations", "outputs"
    return "neurons" if index else "inputs", "neurons" if index < count - 1 else "outputs"


def view_of(
    name: str, layer: Layer, read: Callable[[], Layer], reads: Reads, gives: Gives
) -> LayerView:
    """Return a view of a layer, which keeps nothing of it but its sizes."""
    hidden = layer.up if isinstance(layer, MLPWeights) else layer.gate
    return LayerView(
        FactorSizes(len(layer.down), len(hidden), layer.d_in),
        layer.phi,
        layer.down.dtype,
        read,
        isinstance(layer, GLUWeights),
        reads,
        gives,
        name=name,
    )


FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "identity": lambda t: t,
    "relu": functional.relu,
    "squared_relu": lambda t: functional.relu(t).square(),
    "gelu": functional.gelu,
    "gelu_tanh": lambda t: functional.gelu(t, approximate="tanh"),
    "silu": functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def check_layer(
    name: str,
    layer: Layer,
    roles: LayerRoles,
    store: Store,
    activation: Activation,
    transposed: bool,
) -> Agreement:
    """Return how far a layer is from the same thing written with torch.nn.functional.

    Raises:
        NumericalError: If they are not the same.
    """

    def linear(x: Tensor, weight: str, bias: str | None) -> Tensor:
        w = store[weight].read().double()
        y = x @ w if transposed else functional.linear(x, w)
        return y if bias is None else y + store[bias].read().double()

    _, d_in = sizes(store[roles.up].shape, transposed)
    x = normal_inputs(d_in)
    up = linear(x, roles.up, roles.up_bias)
    gate = up if roles.gate is None else linear(x, roles.gate, roles.gate_bias)
    if activation.name == "leaky_relu":
        hidden = functional.leaky_relu(gate, activation.leak)
    else:
        hidden = FUNCTIONS[activation.name](gate)
    y = hidden if roles.gate is None else hidden * up
    if roles.down is not None:
        y = linear(y, roles.down, roles.down_bias)
    source = "torch.nn.functional on the tensors as they lie in the file"
    return agreement(name, source, y, in_float64(layer)(x)).required()
