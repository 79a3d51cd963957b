"""The weights of a module as layers of the two kinds that can be fitted."""

from __future__ import annotations

import copy
from collections.abc import Iterator

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.activation import Activation
from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights, in_float64
from bilens.base.errors import UsageError
from bilens.nn.classifier import BilinearClassifier
from bilens.nn.layer import BilinearLayer
from bilens.nn.mlp import BilinearMLP
from bilens.nn.mlp_search.find_mlps import find_mlps, in_words
from bilens.nn.ordinary_mlp import MLP


def network_weights(module: nn.Module) -> tuple[Layer, ...]:
    """Return the layers of a module, first to last, in float64 and cut from the graph of gradients.

    Args:
        module: a layer, MLP or classifier of bilens, or any module that is linear maps, activations
            and products of two branches one behind the other, as `find_mlps` reads it.

    Raises:
        UsageError: If the module is more than that, or nothing of it.
    """
    wide = copy.deepcopy(module).cpu().double().requires_grad_(False)
    if isinstance(wide, BilinearClassifier):
        return tuple(classifier_layers(wide))
    if isinstance(wide, BilinearMLP):
        return (gated(wide, wide.down.weight, constant=wide.down.bias),)
    if isinstance(wide, BilinearLayer):
        return (gated(wide, identity(wide.left.out_features)),)
    if isinstance(wide, MLP):
        up, down = wide.up, wide.down
        return (
            MLPWeights(down.weight, up.weight, Activation("gelu"), up.bias, constant=down.bias),
        )
    found = find_mlps(wide)
    if not found.network:
        raise UsageError(
            f"a {type(module).__name__} is not its MLPs one behind the other: {len(found.layers)} "
            f"layer(s) found, {', '.join([*found.layers][:4])}.{in_words(found.left_out)} Read "
            "them one by one: bl.from_module(module).layers."
        )
    return tuple(in_float64(layer.read()) for layer in found.layers.values())


def identity(width: int) -> Tensor:
    """Return an identity matrix, the `down` of a layer that is not followed by a linear map."""
    return torch.eye(width, dtype=torch.float64)


def gated(
    layer: BilinearLayer,
    down: Tensor,
    *,
    embed: Tensor | None = None,
    linear: Tensor | None = None,
    constant: Tensor | None = None,
) -> GLUWeights:
    """Return a layer of ours between a linear map before it and one behind it."""
    left, right = layer.left.weight, layer.right.weight
    return GLUWeights(
        down,
        left if embed is None else left @ embed,
        right if embed is None else right @ embed,
        Activation("identity" if layer.gate is None else layer.gate),
        layer.left.bias,
        layer.right.bias,
        linear,
        constant,
    )


def classifier_layers(model: BilinearClassifier) -> Iterator[GLUWeights]:
    """Yield the layers of a classifier; the first contains the embedding, the last the head."""
    last = len(model.layers) - 1
    for index, layer in enumerate(model.layers):
        assert isinstance(layer, BilinearLayer), "built in __init__"
        embed = model.embed.weight if index == 0 else None
        down = model.head.weight if index == last else identity(layer.left.out_features)
        linear = None
        if model.residual:
            linear = down if embed is None else down @ embed
        yield gated(layer, down, embed=embed, linear=linear)
