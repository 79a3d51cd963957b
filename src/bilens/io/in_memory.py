"""Models in memory: the MLPs inside any PyTorch module."""

from __future__ import annotations

from dataclasses import replace
from functools import partial
from typing import Any

from torch import nn

from bilens.io.formats.ends import ends_of
from bilens.io.formats.huggingface import said_input
from bilens.io.loaded_model import LoadedModel, LoadReport
from bilens.io.stored_mlp import module_tensors
from bilens.io.tensors import sha256_of_module
from bilens.nn.mlp_search.compare_run import compare_with_module
from bilens.nn.mlp_search.find_mlps import find_mlps
from bilens.nn.real_run import ONE_AT_A_TIME


def from_module(module: nn.Module, example: object = None) -> LoadedModel:
    """Read the MLPs inside any PyTorch module as layers; the module is not changed.

    Layers are found by tracing the module, or its parts, with torch.fx: linear maps with an
    activation between them, ordinary or gated, convolutions as maps of the patch at each place;
    biases, residual paths and batch normalisations become part of a layer, an activation is known
    by its values. Where that does not reach, an example is run and what enters each linear map is
    compared with what leaves the ones before. What is read is compared with the module itself as
    its owner calls it, hooks and all, in evaluation: on the example, or else at several scales.
    `model.load_report` says how far it is off, what was not read, and what could not be compared.

    A module on the meta device is read as a plan: names, sizes and what each layer is made of,
    which nothing was compared with; `bl.plan_eigendecomposition(view)` says what one will take.

    `bl.quadratic_fit` reads the model end to end where its layers one behind the other are the
    module, and `model.layers[name]` one by one.

    Cost: a trace of each part, a copy in float64 of one traced part at a time, and a run of the
        module or its parts on 64 rows; its flags and buffers are put back, whatever happens.

    Args:
        module: any module, or a wrapper of nnsight with one; its weights are read when they are
            asked for, so that layers of a module that is trained on are those of the moment.
        example: an input, a tuple of arguments or a mapping of keyword arguments, which the module
            is run on without gradients; None for random rows.

    Raises:
        UsageError: If it is no module, cannot be copied, holds no MLP or computes something else
            than what is read of it, or the example does not run.
        NonFiniteError: If a weight of a layer is NaN or infinite.
        MemoryLimitError: If a part in float64 would not fit.
    """
    again = partial(from_module, module, example)
    given: Any = module  # or a wrapper that is no module itself, as nnsight's
    module = given if isinstance(given, nn.Module) else getattr(given, "_module", given)
    with ONE_AT_A_TIME:  # a trace changes every module's calls while it lasts, in all threads
        found = compare_with_module(module, find_mlps(module, example), example)
    kind, config = type(module).__name__, getattr(module, "config", None)
    content = {} if config is None or not hasattr(config, "to_dict") else config.to_dict()
    return LoadedModel(
        None,
        f"the {kind}",
        sha256 := sha256_of_module(module),
        provenance={"format": f"PyTorch module {kind}"},
        views={
            name: replace(
                view,
                compare=again,
                about_input=view.about_input or said_input(content, view.tensors),
            )
            for name, view in found.layers.items()
        },
        stored=module_tensors(module),
        load_report=LoadReport(
            found.made_of, False, found.checks, found.left_out, found.head, found.unverified
        ),
        original=module,
        reread=again,
        module_sha256=sha256,
        ends=ends_of(content),
    )
