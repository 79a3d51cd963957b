"""The layers of a module: views of those of ours, and plain weights of whatever can be fitted."""

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_finite
from bilens.base.errors import NonFiniteError, NumericalError, UsageError
from bilens.nn.agreement import Agreement, agreement_with_run, together
from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer_view import LayerView, Reads
from bilens.nn.mlp import MLP, BilinearLayer
from bilens.nn.mlp_search.compare_run import compare_network
from bilens.nn.polynomial_transformer import PolynomialTransformer
from bilens.nn.real_run import (
    first_tokens,
    foreign_methods,
    refuse_what_acts,
    run_as_owner,
    watch_what_acts,
    what_may_differ,
)
from bilens.nn.sparse_autoencoder import SparseAutoencoder
from bilens.nn.transformer import BilinearTransformer

FOLDED = "the residual stream divided by its root mean square; a gain of the norm is in the weights"
SCALED = "the residual stream times mlp_scale, a factor for each channel"
Transformer = BilinearTransformer | PolynomialTransformer
Module = BilinearClassifier | BilinearLayer | Transformer | SparseAutoencoder


def layer_views(module: Module) -> dict[str, LayerView]:
    """Return a view of each layer of a module of ours; a sparse autoencoder has none."""
    if isinstance(module, SparseAutoencoder):
        raise UsageError(
            f"a {type(module).__name__} is a dictionary for the activations of a layer and has no "
            "layers of its own: load the model that it was trained on, and give the SAE beside it."
        )
    if isinstance(module, BilinearClassifier):
        views = [view_in_classifier(module, index) for index in range(len(module.layers))]
    elif isinstance(module, Transformer):
        about = FOLDED if isinstance(module, BilinearTransformer) else SCALED
        views = [
            view_of(mlp, f"blocks.{index}.mlp", "residual stream", about, inside=True)
            for index, mlp in enumerate(module.mlps)
        ]
    else:
        views = [view_of(module, "layer", "inputs")]
    return {
        view.name: replace(view, compare=lambda: compare_with_module(module, layer_views(module)))
        for view in views
    }


def view_in_classifier(model: BilinearClassifier, index: int) -> LayerView:
    """Return a view of a layer: the first contains the embedding, the last the head."""
    first, last = index == 0, index == len(model.layers) - 1
    reads: Reads = "inputs" if first else "neurons"
    view = view_of(layer_at(model, index), f"layers.{index}", reads)
    d_in = model.embed.in_features if first else view.sizes.d_in
    d_out = model.head.out_features if last else view.sizes.d_out
    holders = (f"{view.name}.", *["embed."] * first, *["head."] * last)
    parameters = model.named_parameters()
    return replace(
        view,
        sizes=FactorSizes(d_out, view.sizes.d_hidden, d_in),
        read=lambda: layer_of_classifier(model, index),
        gives="logits" if last else "neurons",
        embedding=(lambda: wide(model.embed.weight)) if first else None,
        tensors={name: one.numel() for name, one in parameters if name.startswith(holders)},
        basis_name=None if first else lambda: model.basis_name(index),
    )


def layer_at(model: BilinearClassifier, index: int) -> BilinearLayer:
    layer = model.layers[index]
    assert isinstance(layer, BilinearLayer), "built in __init__"
    return layer


def view_of(
    layer: nn.Module, name: str, reads: Reads, about_input: str = "", inside: bool = False
) -> LayerView:
    """Return a view of a layer or an MLP of ours, by itself or `inside` a model."""
    assert isinstance(layer, BilinearLayer | MLP), "of ours"
    prefix = f"{name}." if inside else ""
    inner = layer.left if isinstance(layer, BilinearLayer) else layer.up
    hidden = inner.out_features
    d_out = getattr(layer, "down", inner).out_features
    return LayerView(
        FactorSizes(d_out, hidden, inner.in_features),
        activation_of(layer),
        inner.weight.dtype,
        lambda: plain_weights(layer),
        isinstance(layer, BilinearLayer),
        reads,
        about_input=about_input,
        name=name,
        tensors={f"{prefix}{name}": one.numel() for name, one in layer.named_parameters()},
        compare=lambda: compare_with_module(layer, {name: view_of(layer, name, reads)}),
    )


def activation_of(layer: BilinearLayer | MLP) -> Activation:
    if isinstance(layer, MLP):
        return Activation("gelu")
    return Activation("identity" if layer.gate is None else layer.gate)


def wide(tensor: Tensor) -> Tensor:
    """Return a copy in float64, cut from the graph of gradients."""
    return tensor.detach().to(torch.float64, copy=True)


def wide_bias(layer: nn.Linear) -> Tensor | None:
    return None if layer.bias is None else wide(layer.bias)


def layer_of_classifier(model: BilinearClassifier, index: int) -> GLUWeights:
    """Return one layer in float64, with the embedding before it or the head behind it."""
    layer = plain_weights(layer_at(model, index))
    assert isinstance(layer, GLUWeights), "of two branches"
    down = wide(model.head.weight) if index == len(model.layers) - 1 else layer.down
    layer = replace(layer, down=down, linear=down if model.residual else None)
    if index > 0:
        return layer
    embed = wide(model.embed.weight)
    linear = None if layer.linear is None else layer.linear @ embed
    return replace(layer, gate=layer.gate @ embed, value=layer.value @ embed, linear=linear)


def plain_weights(layer: BilinearLayer | MLP) -> Layer:
    """Return a layer or an MLP of ours in float64."""
    outer, phi = getattr(layer, "down", None), activation_of(layer)
    constant = None if outer is None else wide_bias(outer)
    if isinstance(layer, MLP):
        up, down = wide(layer.up.weight), wide(layer.down.weight)
        return MLPWeights(down, up, phi, wide_bias(layer.up), constant=constant)
    left, right = wide(layer.left.weight), wide(layer.right.weight)
    down = torch.eye(len(left)).to(left) if outer is None else wide(outer.weight)
    skip = getattr(layer, "skip", None)
    linear = None if skip is None else wide(skip.weight)
    gate_bias, value_bias = wide_bias(layer.left), wide_bias(layer.right)
    return GLUWeights(down, left, right, phi, gate_bias, value_bias, linear, constant)


def check_runs_as_read(module: object) -> None:
    """Refuse a module of ours that computes something else than its layers say when it runs.

    Products of weights that are no numbers, and layers of a transformer with NaN, are left to
    whoever reads them.
    """
    if isinstance(module, BilinearClassifier | BilinearLayer):
        for name, parameter in module.named_parameters():
            check_finite(name, parameter)
    elif not isinstance(module, Transformer):
        return
    with suppress(NonFiniteError):
        compare_with_module(module, layer_views(module))


def compare_with_module(module: Module | MLP, layers: Mapping[str, LayerView]) -> Agreement:
    """Return how far the layers, as they are read, compute what the module does when it runs.

    Raises: NumericalError if they do not; UsageError if a hook or a method acts that was not read:
        on other inputs than those that were compared nobody knows what it does.
    """
    with watch_what_acts(module) as acted:
        found = compare_while_watched(module, layers)
    refuse_what_acts(module, [*acted, *foreign_methods(module)])
    return found


def compare_while_watched(module: Module | MLP, layers: Mapping[str, LayerView]) -> Agreement:
    """Compare the layers of a module of ours with the module as it runs."""
    why = what_may_differ(module)
    if not isinstance(module, Transformer):
        whole = compare_network(module, [view.read() for view in layers.values()])
        if isinstance(whole, str):
            raise NumericalError(f"the {type(module).__name__} cannot be compared: {whole}.")
        return replace(whole, layer=" and ".join(layers)).required(because=why)
    paths = [f"blocks.{index}.mlp" for index in range(len(layers))]
    ids = first_tokens(module.config.vocab_size, module.config.n_ctx)
    seen = run_as_owner(module, ids.to(next(module.parameters()).device), paths)[1]
    found = []
    for path, view in zip(paths, layers.values(), strict=True):
        x, y = (seen[path, side].flatten(0, -2) for side in ("entered", "left"))
        found.append(agreement_with_run(path, [view.read()], x, y).required(because=why))
    return together(found)
