"""How close the closest quadratic maps of a model come: the whole of it, and each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.approximation.least_squares import FitScores, LeastSquaresFit, RSquared
from bilens.algebra.approximation.quadratic_fit import SAMPLES, THRESHOLD, QuadraticFit
from bilens.api.provenance import describe_run, describe_source
from bilens.api.quadratic_fit import Subject, quadratic_fit
from bilens.base.errors import UsageError
from bilens.io.load import LoadedModel
from bilens.nn.layer_view import LayerView
from bilens.records.base import SCHEMA_VERSION, to_json

WHOLE = "model"  # what the layers one behind the other are called


def fit_layers_of(
    model: LoadedModel,
    data: Tensor | None = None,
    *,
    layers: Sequence[str] = (),
    samples: int = SAMPLES,
    threshold: float = THRESHOLD,
    seed: int = 0,
    command: str | None = None,
) -> dict[str, Any]:
    """Return R² by degree of the closest quadratic maps of a model, as a JSON document.

    A model that is its layers one behind the other is fitted end to end, then layer by layer; of
    any other the layers are fitted. Without data each input is taken to be standard normal. With
    data, inputs of the model, each layer is fitted under the mean and covariance of what reaches
    it when they run through the layers below.

    Args:
        model: what `bl.load`, `bl.from_module` or `bl.from_sklearn` returned.
        data: (rows, in); where the layers are no network, inputs of the one layer that is named.
        layers: names; none for the whole and all layers.
        samples: that R² is measured on under the assumed input.
        threshold: R² from which a map stands for what it was fitted to.
        seed: of the samples and of the rows held out.
        command: how to reproduce this; None takes the process's command line.

    Raises:
        UsageError: If there is no such layer, or the data are of no one layer.
        ShapeError: If the data do not fit.
        NonFiniteError: If weights or data hold NaN or infinity.
        MemoryLimitError: If factors or samples would not fit.
    """
    unknown = [name for name in layers if name not in model.layers]
    if unknown:
        raise UsageError(
            f"{model.source} has the layers {', '.join([*model.layers][:8])}; got {unknown[0]!r}: "
            "name one of them with --layer."
        )
    chained = bool(model.network)
    names = list(layers or model.layers)
    if data is not None and not chained and len(names) > 1:
        raise UsageError(
            f"{model.source} has {len(names)} layers that are not one behind the other, and the "
            "data can be inputs of one alone: name it with --layer."
        )
    entries = []
    if chained and not layers and len(model.layers) > 1:
        subject: Subject = model
        entries.append((WHOLE, subject, data))
    reached = inputs_of_layers(model, data) if chained else dict.fromkeys(names, data)
    entries += [(name, model.layers[name], reached[name]) for name in names]
    found = []
    for name, subject, rows in entries:
        fit = quadratic_fit(
            subject,
            data=rows,
            samples=samples,
            threshold=threshold,
            generator=torch.Generator().manual_seed(seed),
        )
        view = subject if isinstance(subject, LayerView) else None
        found.append({"name": name, **described(view), **fit_record(fit)})
    return {
        "schema_version": SCHEMA_VERSION,
        "kind": "quadratic fit",
        "source": to_json(describe_source(model)),
        "num_rows": None if data is None else len(data),
        "fits": found,
        "reproduce": to_json(describe_run(command, seed)),
    }


def inputs_of_layers(model: LoadedModel, data: Tensor | None) -> dict[str, Tensor | None]:
    """Return what reaches each layer of a network when data run through the ones below."""
    reached: dict[str, Tensor | None] = {}
    for name, view in model.layers.items():
        reached[name] = data
        if data is not None:
            data = view.weights(torch.float64)(data.detach().double())
    return reached


def described(view: LayerView | None) -> dict[str, Any]:
    """Return what a layer is; nothing of a whole model."""
    if view is None:
        return {"activation": None, "gated": None, "d_in": None, "d_hidden": None, "d_out": None}
    return {
        "activation": str(view.activation),
        "gated": view.gated,
        "d_in": view.sizes.d_in,
        "d_hidden": view.sizes.d_hidden,
        "d_out": view.sizes.d_out,
    }


def fit_record(fit: QuadraticFit) -> dict[str, Any]:
    """Return a fit as JSON values."""
    return {
        "exact": fit.exact,
        "derivation": fit.derivation,
        "assumed_input": fit.assumed_input,
        "assumed": scores(fit.r_squared),
        "on_data": None if fit.on_data is None else scores(fit.on_data),
        "least_squares": None if fit.least_squares is None else refitted(fit.least_squares),
        "threshold": fit.threshold,
        "usable": fit.usable,
    }


def scores(found: FitScores) -> dict[str, Any]:
    """Return R² by degree as JSON values."""
    return {
        "rows": found.rows,
        "linear": numbers(found.linear),
        "quadratic": numbers(found.quadratic),
        "outputs": [finite(value) for value in found.quadratic.outputs.tolist()],
    }


def refitted(found: LeastSquaresFit) -> dict[str, Any]:
    """Return the refit on data as JSON values."""
    return {
        "rows_fitted": found.rows[0],
        "rows_held_out": found.rows[1],
        "held_out": numbers(found.held_out),
        "closed_form_held_out": numbers(found.closed_form_held_out),
    }


def numbers(score: RSquared) -> dict[str, float | None]:
    """Return R² and its standard error."""
    return {"value": finite(score.overall), "standard_error": finite(score.standard_error)}


def finite(value: float) -> float | None:
    """Return a number; None for −∞, the R² of a constant that is missed."""
    return value if math.isfinite(value) else None
