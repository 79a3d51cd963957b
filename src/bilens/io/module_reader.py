"""`bl.from_module`: the MLPs inside any PyTorch module, as layers of a loaded model."""

from __future__ import annotations

from torch import nn

from bilens.io.loaded_model import LoadedModel, LoadReport
from bilens.io.tensors import tensors_sha256
from bilens.nn.mlp_search.find_mlps import find_mlps


def from_module(module: nn.Module, example: object = None) -> LoadedModel:
    """Read the MLPs inside any PyTorch module as layers; the module is not changed.

    Layers are found by tracing the module, or its parts, with torch.fx: linear maps with an
    activation between them, ordinary or gated, however they are written; biases, residual paths
    and batch normalisations become part of a layer. Where that does not reach, an example is
    run and what enters each linear map is compared with what leaves the ones before it. An
    activation is known by its values. Every layer is compared with what the module itself
    computes there; `model.load_report` says how far it is off, and what was not read.

    Where the layers one behind the other are the module, `bl.quadratic_fit(model)` reads it end to
    end; otherwise layer by layer, `bl.quadratic_fit(model.layers[name])`.

    Cost: a trace of each part and, for the check, a copy in float64 of one traced part at a time.

    Args:
        module: any module; its weights are read when they are asked for, so that layers of a
            module that is trained on are those of the moment.
        example: an input, a tuple of arguments or a mapping of keyword arguments, run once without
            gradients; None for no run.

    Returns:
        A model without `module`; `model.layers`: name → `LayerView`.

    Raises:
        UsageError: If it is no module, cannot be copied, holds no MLP, or the example does not run.
        NonFiniteError: If a weight of a layer is NaN or infinite.
        MemoryLimitError: If a part in float64 would not fit.
    """
    found = find_mlps(module, example)
    kind = type(module).__name__
    return LoadedModel(
        None,
        f"the {kind}",
        tensors_sha256([*module.named_parameters(), *module.named_buffers()]),
        provenance={"format": f"PyTorch module {kind}"},
        views=found.layers,
        load_report=LoadReport(found.made_of, False, found.checks, found.left_out, found.head),
    )
