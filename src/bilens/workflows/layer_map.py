"""The quadratic map of a layer of a loaded model, in the basis that is asked for."""

from __future__ import annotations

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.whiten import whiten
from bilens.errors import UsageError
from bilens.io.load import LoadedModel, Module, layer_alone
from bilens.nn import BilinearClassifier, BilinearTransformer
from bilens.nn.classifier import Basis as LayerBasis
from bilens.workflows.decomposition_request import Basis
from bilens.workflows.input_moments import InputMoments


@dataclass(frozen=True, eq=False)
class LayerMap:
    """A layer in a basis, and what the rotation null of it needs.

    Attributes:
        f: the map, in the basis asked for.
        behind: the map behind the embedding, where the null rotates its right branch.
        embedding: E, (in of behind, in of f), whitening included; None where there is none.
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


def layer_map(
    model: LoadedModel, name: str, basis: Basis, inputs: InputMoments | None = None
) -> LayerMap:
    """Return a layer in a basis; weights that have to be multiplied are multiplied in float64.

    Args:
        model: what `bl.load` returned.
        name: of the layer.
        basis: what its inputs are written in.
        inputs: for the basis "whitened".

    Raises:
        UsageError: If the layer does not have the basis, or there are no inputs for it.
        NotQuadraticError: If the layer is gated.
    """
    index, module = model.layers[name].index, model.module
    if basis != "input" and isinstance(module, BilinearTransformer):
        raise UsageError(f"{name} reads a normalised residual stream: use --basis input.")
    if index not in (None, 0) and basis != "input":
        what = "embedding before it" if basis == "embedding" else "images for inputs, but neurons"
        raise UsageError(
            f"{name} has no {what}: use basis='input' (--basis), or read the first layer alone, "
            f"with --layer {next(iter(model.layers))}."
        )
    if basis == "embedding" and index is None:
        raise UsageError(f"a {type(module).__name__} has no embedding: use --basis input.")
    mapped = layer_of(module, index, "input" if basis == "whitened" else basis)
    return mapped if basis != "whitened" else whitened(mapped, name, inputs)


def layer_of(module: Module, index: int | None, basis: LayerBasis) -> LayerMap:
    """Return a layer as it is, or in the basis behind its embedding."""
    if isinstance(module, BilinearClassifier):
        assert index is not None, "a classifier is read layer by layer"
        wide = copy.deepcopy(module).double()
        f = wide.layer_map(index, basis).detach()
        if index > 0 or basis == "embedding":
            return LayerMap(f, f, None)
        behind = wide.layer_map(index, "embedding").detach()
        return LayerMap(f, behind, wide.embed.weight.detach())
    layer = layer_alone(module, index)
    if layer.has_bias:  # they multiply the weights
        layer = copy.deepcopy(layer).double()
    f = layer.quadratic_map().detach()
    return LayerMap(f, f, None)


def whitened(layer: LayerMap, name: str, inputs: InputMoments | None) -> LayerMap:
    """Return a layer in coordinates in which its inputs have unit covariance.

    Its embedding becomes E Σ^½: what whitened inputs pass on the way to the right branch.

    Raises:
        UsageError: If there are no inputs, or they do not have the width that the layer reads.
    """
    if inputs is None:
        raise UsageError('the basis "whitened" needs inputs: pass their moments (--data-dir).')
    d_in = layer.f.sizes.d_in
    if len(inputs.mean) != d_in:
        raise UsageError(
            f"{name} reads {d_in} inputs, and {inputs.about['name'] or 'the data'} has images of "
            f"{len(inputs.mean)} pixels: pass the data set that it was trained on."
        )
    embedding = layer.embedding
    if embedding is None:
        embedding = torch.eye(d_in, dtype=torch.float64)
    one = embedding.new_ones(1, len(embedding))
    branches = QuadraticMap(BilinearTensor(one, embedding, embedding))  # carries E through Σ^½
    return LayerMap(
        whiten(layer.f, inputs.covariance, inputs.mean),
        layer.behind,
        whiten(branches, inputs.covariance).tensor.left,
    )
