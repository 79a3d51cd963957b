"""The quadratic map of a layer of a loaded model, in the basis that is asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass

from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.errors import UsageError
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.workflows.decomposition_request import Basis


@dataclass(frozen=True, eq=False)
class LayerMap:
    """A layer in a basis, and what the rotation null of it needs.

    Attributes:
        f: the map, in the basis asked for.
        behind: the map behind the embedding, where the null rotates its right branch.
        embedding: E, (in of behind, in of f); None where f stands behind it itself.
    """

    f: QuadraticMap
    behind: QuadraticMap
    embedding: Tensor | None


def choose_layer(model: LoadedModel, layer: str | None) -> str:
    """Return the name of the layer that is meant."""
    known = list(model.layers)
    if layer is None and len(known) == 1:
        return known[0]
    if layer is None or layer not in known:
        raise UsageError(
            f"{model.source} has the layers {', '.join(known)}; got {layer!r}: name one of them "
            "with --layer."
        )
    return layer


def layer_map(model: LoadedModel, name: str, basis: Basis) -> LayerMap:
    """Return a layer in a basis; weights that have to be multiplied are multiplied in float64.

    Raises:
        UsageError: If the layer does not have the basis.
        NotQuadraticError: If the layer is gated.
    """
    index, module = model.layers[name].index, model.module
    if isinstance(module, BilinearClassifier):
        assert index is not None, "a classifier is read layer by layer"
        if basis == "embedding" and index > 0:
            raise UsageError(
                f"{name} has no embedding before it: use basis='input' (--basis), or read the "
                f"first layer alone, with --layer {next(iter(model.layers))}."
            )
        wide = copy.deepcopy(module).double()
        if index > 0 or basis == "embedding":
            return alone(wide.layer_map(index, "embedding" if index == 0 else "input").detach())
        behind = wide.layer_map(index, "embedding").detach()
        return LayerMap(wide.layer_map(index).detach(), behind, wide.embed.weight.detach())
    if basis == "embedding":
        raise UsageError(f"a {type(module).__name__} has no embedding: use --basis input.")
    if module.has_bias:  # they multiply the weights
        module = copy.deepcopy(module).double()
    return alone(module.quadratic_map().detach())


def alone(f: QuadraticMap) -> LayerMap:
    """Return a map that has no embedding in front of it."""
    return LayerMap(f, f, None)
