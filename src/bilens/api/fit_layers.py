"""How close the closest quadratic maps of a model come: the whole of it, and each layer."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.approximation.least_squares import FitScores, LeastSquaresFit, RSquared
from bilens.algebra.approximation.quadratic_fit import SAMPLES, THRESHOLD, QuadraticFit
from bilens.api.provenance import describe_run, describe_source
from bilens.api.quadratic_fit import Subject, quadratic_fit
from bilens.base.errors import UsageError
from bilens.io.load import LoadedModel
from bilens.nn.layer_view import LayerView
from bilens.records.quadratic_fits import (
    DegreeScores,
    LayerFit,
    QuadraticFits,
    RefittedScores,
    Score,
)

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
) -> QuadraticFits:
    """Return R² by degree of the closest quadratic maps of a model.

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
        found.append(fit_record(name, view, fit))
    return QuadraticFits(
        source=describe_source(model),
        num_rows=None if data is None else len(data),
        fits=tuple(found),
        reproduce=describe_run(command, seed),
    )


def inputs_of_layers(model: LoadedModel, data: Tensor | None) -> dict[str, Tensor | None]:
    """Return what reaches each layer of a network when data run through the ones below."""
    reached: dict[str, Tensor | None] = {}
    for name, view in model.layers.items():
        reached[name] = data
        if data is not None:
            data = view.weights(torch.float64)(data.detach().double())
    return reached


def fit_record(name: str, view: LayerView | None, fit: QuadraticFit) -> LayerFit:
    """Return a fit of a layer, or of a whole model, as a record."""
    sizes = None if view is None else view.sizes
    return LayerFit(
        name=name,
        activation=None if view is None else str(view.activation),
        gated=None if view is None else view.gated,
        d_in=None if sizes is None else sizes.d_in,
        d_hidden=None if sizes is None else sizes.d_hidden,
        d_out=None if sizes is None else sizes.d_out,
        exact=fit.exact,
        derivation=fit.derivation,
        assumed_input=fit.assumed_input,
        assumed=scores(fit.r_squared),
        on_data=None if fit.on_data is None else scores(fit.on_data),
        least_squares=None if fit.least_squares is None else refitted(fit.least_squares),
        threshold=fit.threshold,
        usable=fit.usable,
    )


def scores(found: FitScores) -> DegreeScores:
    """Return R² by degree as a record."""
    outputs = tuple(finite(value) for value in found.quadratic.outputs.tolist())
    return DegreeScores(found.rows, score(found.linear), score(found.quadratic), outputs)


def refitted(found: LeastSquaresFit) -> RefittedScores:
    """Return the refit on data as a record."""
    return RefittedScores(*found.rows, score(found.held_out), score(found.closed_form_held_out))


def score(found: RSquared) -> Score:
    """Return R² and its standard error."""
    return Score(finite(found.overall), finite(found.standard_error))


def finite(value: float) -> float | None:
    """Return a number; None for −∞, the R² of a constant that is missed."""
    return value if math.isfinite(value) else None
