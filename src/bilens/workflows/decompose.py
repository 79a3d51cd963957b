"""Taking the outputs of the layers of a loaded model apart."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass

import torch

from bilens.algebra.effective_rank import effective_rank
from bilens.algebra.eigen.batches import select
from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.eigen.eigendecompose import eigendecompose_all
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.errors import UsageError
from bilens.findings.decomposition import LayerDecomposition, summarise_spectra
from bilens.io.load import LoadedModel
from bilens.nn import BilinearClassifier
from bilens.nn.classifier import Basis
from bilens.workflows.decomposition_request import Request
from bilens.workflows.output_selection import LayerOutputs, read_outputs

WHOLE_WIDTH, WHOLE_OUTPUTS = 1024, 128  # up to here whole spectra are a matter of seconds


@dataclass(frozen=True, eq=False)
class Decomposition:
    """What `decompose` found: the record for people, the pairs that it shows for programs."""

    record: LayerDecomposition
    pairs: EigenDecomposition


def decompose(
    model: LoadedModel,
    request: Request | None = None,
    *,
    layer: str | None = None,
    memory_limit: int | str | None = None,
    progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Decomposition:
    """Take the outputs of one layer apart.

    Args:
        model: what `bl.load` returned.
        request: what is wanted; None for the five leading pairs of every output.
        layer: its name; None where the model has one layer.
        memory_limit: as in `eigendecompose_all`.
        progress: called with (outputs done, outputs).

    Raises:
        UsageError: If there is no such layer, output, basis or reading, or a reading of classes is
            asked of neurons.
        NotQuadraticError: If the layer is gated.
        MemoryLimitError: If no method fits into the memory allowed.
    """
    request = Request() if request is None else request
    name = choose_layer(model, layer)
    outputs = LayerOutputs.of(model, name)
    read = read_outputs(outputs, request)
    f, directions = layer_map(model, name, request.basis), read.directions
    small = f.sizes.d_in <= WHOLE_WIDTH and len(directions) <= WHOLE_OUTPUTS
    whole = request.spectrum == "whole" or (request.spectrum == "auto" and small)
    eigs = eigendecompose_all(
        f,
        directions,
        None if whole else min(request.top, f.sizes.d_in),
        request.which,
        request.method,
        precision=request.precision,
        verify=request.verify,
        memory_limit=memory_limit,
        seed=request.seed,
        progress=progress,
    )
    ranks = None
    if whole:
        spectra = torch.where(eigs.eigenvalues.isfinite(), eigs.distinct_from_zero, 0.0)
        ranks = effective_rank(spectra)
        eigs = select(eigs, request.top, request.which)
    traces = directions @ f.tensor.traces()
    record = LayerDecomposition(
        name,
        request.basis,
        outputs.kind,
        read.reading,
        request.which,
        "whole" if whole else "top",
        eigs.method,
        request.precision,
        f.sizes.d_in,
        f.sizes.d_hidden,
        f.sizes.d_out,
        summarise_spectra(eigs, read.names, traces, ranks),
    )
    return Decomposition(record, eigs)


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


def layer_map(model: LoadedModel, name: str, basis: Basis) -> QuadraticMap:
    """Return the map of a layer in a basis.

    Weights that have to be multiplied are multiplied in float64.
    """
    view = model.layers[name]
    module = view.module
    if isinstance(module, BilinearClassifier) and view.index is not None:
        if basis == "embedding" and view.index > 0:
            raise UsageError(f"{name} has no embedding before it: use basis='input' (--basis).")
        wide = copy.deepcopy(module).double()
        return wide.layer_map(view.index, basis).detach()
    if basis != "input":
        raise UsageError(f"a {type(module).__name__} has no embedding: use --basis input.")
    if module.has_bias:  # they multiply the weights
        module = copy.deepcopy(module).double()
    return module.quadratic_map().detach()
