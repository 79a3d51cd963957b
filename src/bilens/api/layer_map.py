"""The quadratic map of a layer of a loaded model, in the basis that is asked for."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_fit import exact_map
from bilens.algebra.approximation.quadratic_fit import QuadraticFit
from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gaussian import whiten
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.api.approximate_reading import offer_of
from bilens.api.decomposition_request import Basis
from bilens.api.input_moments import InputMoments
from bilens.base.errors import NotQuadraticError, UsageError
from bilens.findings.decomposition import approximation_quality
from bilens.io.load import LayerView, LoadedModel
from bilens.nn import BilinearClassifier
from bilens.records.decomposition import ApproximationQuality


@dataclass(frozen=True, eq=False)
class LayerMap:
    """A layer in a basis, and what the rotation null of it needs.

    Attributes:
        f: the map, in the basis asked for.
        behind: the map behind the embedding, where the null rotates its right branch.
        embedding: E, (in of behind, in of f), whitening included; None where there is none.
        approximation: how far the map stands for the layer; None where it is the layer.
        about_input: what comes in, as far as it needs words.
    """

    f: QuadraticMap
    behind: QuadraticMap
    embedding: Tensor | None
    approximation: ApproximationQuality | None = None
    about_input: str = ""


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

    A layer that is not exactly quadratic is stood for by its closest quadratic map.

    Args:
        model: what `bl.load` returned.
        name: of the layer.
        basis: what its inputs are written in.
        inputs: for the basis "whitened".

    Raises:
        UsageError: If the layer does not have the basis, or there are no inputs for it.
        NotQuadraticError: If the layer is not quadratic and the closest map explains too little.
    """
    view, module = model.layers[name], model.module
    if basis != "input" and view.reads in ("residual stream", "activations"):
        normalised = "a normalised " if view.reads == "residual stream" else ""
        raise UsageError(f"{name} reads {normalised}{view.reads}: use --basis input.")
    if basis != "input" and view.reads == "neurons":
        what = "embedding before it" if basis == "embedding" else "images for inputs, but neurons"
        raise UsageError(
            f"{name} has no {what}: use basis='input' (--basis), or read the first layer alone, "
            f"with --layer {next(iter(model.layers))}."
        )
    if basis == "embedding" and not isinstance(module, BilinearClassifier):
        raise UsageError(f"{kind_of(model)} has no embedding: use --basis input.")
    if not view.exact:
        fit = stand_in(view, name)
        said = approximation_quality(fit, view.activation.name)
        mapped = LayerMap(fit.quadratic_map, fit.quadratic_map, None, said, view.about_input)
    elif isinstance(module, BilinearClassifier):
        mapped = layer_of(module, [*model.layers].index(name), basis)
    else:
        f = exact_map(view.weights(torch.float64))
        mapped = LayerMap(f, f, None, about_input=view.about_input)
    return mapped if basis != "whitened" else whitened(mapped, name, inputs)


def kind_of(model: LoadedModel) -> str:
    """Return what a model is, for a message."""
    kind = "model of another library" if model.module is None else type(model.module).__name__
    return f"a {kind}"


def stand_in(view: LayerView, name: str) -> QuadraticFit:
    """Return the closest quadratic map of a layer that is not quadratic.

    Raises:
        NotQuadraticError: If it explains too little of the layer.
    """
    fit = view.fit
    assert fit is not None, "asked of approximate layers alone"
    if not fit.usable:
        branch = "gate" if view.gated else "activation"
        raise NotQuadraticError(
            f"{name} has the {branch} {view.activation.name!r}, so its output is not a quadratic "
            "form of its input: build or train it without one (gate=None). "
            f"{offer_of(fit, f'model.layers[{name!r}]')}"
        )
    return fit


def layer_of(module: BilinearClassifier, index: int, basis: Basis) -> LayerMap:
    """Return a layer of a classifier as it is, or in the basis behind its embedding."""
    dtype = torch.float64
    f = module.layer_map(index, "embedding" if basis == "embedding" else "input", dtype).detach()
    if index > 0 or basis == "embedding":
        return LayerMap(f, f, None)
    behind = module.layer_map(index, "embedding", dtype).detach()
    return LayerMap(f, behind, module.embed.weight.detach().to(dtype))


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
        layer.approximation,
        layer.about_input,
    )
