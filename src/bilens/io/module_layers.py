"""Views of the layers of a module of ours."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import cast

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.base.errors import UsageError
from bilens.io.exactness import Exactness, compare
from bilens.io.layer_view import LayerView, Reads
from bilens.nn import MLP, BilinearClassifier, BilinearLayer, BilinearTransformer, TopKSAE
from bilens.nn.network_weights import classifier_layers, network_weights

FOLDED = "the residual stream divided by its root mean square; a gain of the norm is in the weights"
Module = BilinearClassifier | BilinearLayer | BilinearTransformer | TopKSAE


def layer_views(module: Module) -> dict[str, LayerView]:
    """Return a view of each layer of a module of ours.

    Raises:
        UsageError: If the module is a sparse autoencoder, which has none.
    """
    if isinstance(module, TopKSAE):
        raise UsageError(
            "a TopKSAE is a dictionary for the activations of a layer and has no layers of its "
            "own: load the model that it was trained on, and give the SAE beside it."
        )
    if isinstance(module, BilinearClassifier):
        places = range(len(module.layers))
        return {f"layers.{index}": view_in_classifier(module, index) for index in places}
    if isinstance(module, BilinearTransformer):
        return {
            f"blocks.{index}.mlp": view_of(mlp, "residual stream", FOLDED)
            for index, mlp in enumerate(module.mlps)
        }
    return {"layer": view_of(module, "inputs")}


def view_in_classifier(model: BilinearClassifier, index: int) -> LayerView:
    """Return a view of a layer: the first contains the embedding, the last the head."""
    layer = model.layers[index]
    assert isinstance(layer, BilinearLayer), "built in __init__"
    first, last = index == 0, index == len(model.layers) - 1

    def read() -> Layer:
        wide = copy.deepcopy(model).cpu().double().requires_grad_(False)
        return list(classifier_layers(wide))[index]

    width = layer.left.out_features
    return LayerView(
        FactorSizes(
            model.head.out_features if last else width,
            width,
            model.embed.in_features if first else layer.left.in_features,
        ),
        activation_of(layer),
        dtype_of(layer),
        read,
        reads="inputs" if first else "neurons",
        gives="logits" if last else "neurons",
    )


def view_of(layer: nn.Module, reads: Reads, about_input: str = "") -> LayerView:
    """Return a view of a layer or an MLP of ours that is read by itself."""
    gated = isinstance(layer, BilinearLayer)
    assert isinstance(layer, BilinearLayer | MLP), "of ours"
    inner = layer.left if isinstance(layer, BilinearLayer) else layer.up
    outer = getattr(layer, "down", None)
    hidden = inner.out_features
    return LayerView(
        FactorSizes(hidden if outer is None else outer.out_features, hidden, inner.in_features),
        activation_of(layer),
        dtype_of(layer),
        lambda: network_weights(layer)[0],
        gated,
        reads,
        about_input=about_input,
    )


def activation_of(layer: BilinearLayer | MLP) -> Activation:
    """Return the activation of a layer of ours."""
    if isinstance(layer, MLP):
        return Activation("gelu")
    return Activation("identity" if layer.gate is None else layer.gate)


def dtype_of(layer: nn.Module) -> torch.dtype:
    """Return the dtype of the weights of a layer."""
    return next(layer.parameters()).dtype


def compare_with_module(module: Module, layers: Mapping[str, LayerView]) -> Exactness:
    """Return how far the first layer, as it is read, computes what the module does.

    Raises:
        UsageError: If the module is a sparse autoencoder.
        NumericalError: If it is another function.
    """
    name, view = next(iter(layers.items()))
    wide = copy.deepcopy(module).cpu().double().eval()

    def run(x: Tensor) -> Tensor:
        if isinstance(wide, BilinearTransformer):
            return cast(Tensor, wide.mlps[0](x))
        if not isinstance(wide, BilinearClassifier):
            return cast(Tensor, wide(x))
        embedded = wide.embed(x)
        hidden = wide.layers[0](embedded)
        hidden = hidden + embedded if wide.residual else hidden
        return cast(Tensor, wide.head(hidden) if len(wide.layers) == 1 else hidden)

    source = f"the module ({type(module).__name__})"
    return compare(name, source, view.sizes.d_in, view.weights(torch.float64), run)
