"""The layers of a module: views of those of ours, and plain weights of whatever can be fitted."""

from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import (
    GLUWeights,
    Layer,
    MLPWeights,
)
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.checks import check_finite
from bilens.base.errors import NumericalError, UsageError
from bilens.nn.agreement import Agreement, agreement_with_run, together
from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer_view import LayerView, Reads
from bilens.nn.mlp import MLP, BilinearLayer
from bilens.nn.mlp_search.compare_run import compare_network
from bilens.nn.real_run import first_tokens, run_as_owner, what_may_differ
from bilens.nn.topk_sae import TopKSAE
from bilens.nn.transformer import BilinearTransformer

FOLDED = "the residual stream divided by its root mean square; a gain of the norm is in the weights"
Module = BilinearClassifier | BilinearLayer | BilinearTransformer | TopKSAE


def layer_views(module: Module) -> dict[str, LayerView]:
    """Return a view of each layer of a module of ours; a sparse autoencoder has none."""
    if isinstance(module, TopKSAE):
        raise UsageError(
            "a TopKSAE is a dictionary for the activations of a layer and has no layers of its "
            "own: load the model that it was trained on, and give the SAE beside it."
        )
    if isinstance(module, BilinearClassifier):
        views = [view_in_classifier(module, index) for index in range(len(module.layers))]
    elif isinstance(module, BilinearTransformer):
        views = [
            replace(
                view_of(mlp, f"blocks.{index}.mlp", "residual stream", FOLDED),
                tensors=parameters_in(module, f"blocks.{index}.mlp."),
            )
            for index, mlp in enumerate(module.mlps)
        ]
    else:
        views = [view_of(module, "layer", "inputs")]
    return {view.name: view for view in views}


def view_in_classifier(model: BilinearClassifier, index: int) -> LayerView:
    """Return a view of a layer: the first contains the embedding, the last the head."""
    layer = layer_at(model, index)
    first, last = index == 0, index == len(model.layers) - 1
    width = layer.left.out_features
    d_out = model.head.out_features if last else width
    return LayerView(
        FactorSizes(d_out, width, model.embed.in_features if first else width),
        activation_of(layer),
        layer.left.weight.dtype,
        lambda: layer_of_classifier(model, index),
        reads="inputs" if first else "neurons",
        gives="logits" if last else "neurons",
        name=f"layers.{index}",
        embedding=(lambda: wide(model.embed.weight)) if first else None,
        tensors=parameters_in(model, f"layers.{index}.", *["embed."] * first, *["head."] * last),
        basis_name=None if first else lambda: model.basis_name(index),
        live=True,
    )


def parameters_in(module: nn.Module, *prefixes: str) -> dict[str, int]:
    """Return name → number of the parameters whose names begin with a prefix."""
    named = module.named_parameters()
    return {name: one.numel() for name, one in named if name.startswith(prefixes)}


def layer_at(model: BilinearClassifier, index: int) -> BilinearLayer:
    layer = model.layers[index]
    assert isinstance(layer, BilinearLayer), "built in __init__"
    return layer


def view_of(layer: nn.Module, name: str, reads: Reads, about_input: str = "") -> LayerView:
    """Return a view of a layer or an MLP of ours that is read by itself."""
    assert isinstance(layer, BilinearLayer | MLP), "of ours"
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
        tensors=parameters_in(layer, ""),
        live=True,
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
    layer = layer_at(model, index)
    left, right = wide(layer.left.weight), wide(layer.right.weight)
    last = index == len(model.layers) - 1
    down = wide(model.head.weight) if last else torch.eye(len(left)).to(left)
    linear = down if model.residual else None
    if index == 0:
        embed = wide(model.embed.weight)
        left, right = left @ embed, right @ embed
        linear = None if linear is None else linear @ embed
    biases = wide_bias(layer.left), wide_bias(layer.right)
    return GLUWeights(down, left, right, activation_of(layer), *biases, linear)


def plain_weights(layer: BilinearLayer | MLP) -> Layer:
    """Return a layer or an MLP of ours in float64."""
    outer, phi = getattr(layer, "down", None), activation_of(layer)
    constant = None if outer is None else wide_bias(outer)
    if isinstance(layer, MLP):
        up, down = wide(layer.up.weight), wide(layer.down.weight)
        return MLPWeights(down, up, phi, wide_bias(layer.up), constant=constant)
    left, right = wide(layer.left.weight), wide(layer.right.weight)
    down = torch.eye(len(left)).to(left) if outer is None else wide(outer.weight)
    biases = wide_bias(layer.left), wide_bias(layer.right)
    skip = getattr(layer, "skip", None)
    linear = None if skip is None else wide(skip.weight)
    return GLUWeights(down, left, right, phi, *biases, linear, constant)


def check_runs_as_read(module: object) -> None:
    """Refuse a module of ours that computes something else than its layers say when it runs.

    Those of a transformer are compared when its `exactness` is asked for: it takes a text to run.
    """
    if isinstance(module, BilinearClassifier | BilinearLayer):
        for name, parameter in module.named_parameters():
            check_finite(name, parameter)
        compare_with_module(module, layer_views(module))


def compare_with_module(module: Module, layers: Mapping[str, LayerView]) -> Agreement:
    """Return how far the layers, as they are read, compute what the module does when it runs.

    Raises:
        NumericalError: If they do not.
    """
    read, why = [view.read() for view in layers.values()], what_may_differ(module)
    if not isinstance(module, BilinearTransformer):
        whole = compare_network(module, read)
        if isinstance(whole, str):
            raise NumericalError(f"the {type(module).__name__} cannot be compared: {whole}.")
        return replace(whole, layer=" and ".join(layers)).required(because=why)
    paths = [f"blocks.{index}.mlp" for index in range(len(read))]
    ids = first_tokens(module.config.vocab_size, module.config.n_ctx)
    seen = run_as_owner(module, ids.to(next(module.parameters()).device), paths)[1]
    found = []
    for path, layer in zip(paths, read, strict=True):
        x, y = (seen[path, side].flatten(0, -2) for side in ("entered", "left"))
        found.append(agreement_with_run(path, [layer], x, y).required(because=why))
    return together(found)
