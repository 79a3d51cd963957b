"""`bl.quadratic_fit`: the quadratic map closest to a model that is none, with its R²."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from bilens.algebra.approximation.layer_weights import GLUWeights, Layer, MLPWeights, in_float64
from bilens.algebra.approximation.quadratic_fit import SAMPLES, THRESHOLD, QuadraticFit, fit_layers
from bilens.api.given_model import given_model
from bilens.base.checks import check_finite
from bilens.base.errors import ShapeError, UsageError
from bilens.io.estimator_reader import from_sklearn
from bilens.io.load import LayerView, LoadedModel
from bilens.nn import BilinearTransformer
from bilens.nn.module_layers import network_weights

Run = Callable[[Tensor], Tensor]
Subject = nn.Module | LoadedModel | LayerView | Layer | Sequence[Layer]


def quadratic_fit(
    module_or_weights: Subject,
    mean: Tensor | None = None,
    covariance: Tensor | None = None,
    data: Tensor | None = None,
    *,
    generator: torch.Generator | None = None,
    samples: int = SAMPLES,
    threshold: float = THRESHOLD,
) -> QuadraticFit:
    """Return the quadratic map closest to an ordinary or gated MLP under a normal input.

    Math: the least-squares quadratic under x ~ N(μ, Σ) has the coefficients E f, E ∇f and
        ½ E ∇²f, which for these layers are moments of single neurons and known in closed form;
        `docs/math.md` has the formulas. A bilinear layer is returned as it is. Several layers:
        exact for two bilinear ones, otherwise the input of each further layer is taken to be
        normal. How good the map is, is always measured on the model itself.
    Cost: O(out · hidden · in), O(hidden · in² + in³) for a covariance other than I; for each
        further layer O(out · (in³ + hidden³)); R² is `samples` runs of the model and of the map.

    Args:
        module_or_weights: a layer, MLP or classifier of bilens, any module that is linear maps,
            activations and gates one behind the other, a fitted MLP of scikit-learn, a loaded
            model or one of its layers, `MLPWeights`, `GLUWeights`, or a sequence of them. It is
            not changed.
        mean: μ, (in,); None is zero, or the mean of the data.
        covariance: Σ, (in, in), singular or not; None is I, or the covariance of the data. With a
            mean or a covariance the data do not take part in the closed form.
        data: inputs of the model, (rows, in): R² is also measured on them, and the output weights
            are refitted to the model's outputs on them, reported apart.
        generator: of the samples; None is seed 0.
        samples: that R² is measured on, at least 100.
        threshold: R² below which `check_usable` refuses the map: 0.9 is a correlation of 0.95.

    Returns:
        `quadratic_map` with R² by degree and what was assumed.

    Raises:
        UsageError: If it is no MLP of the kinds above, an activation is not known, Σ is not
            symmetric or has an eigenvalue below zero, or an argument is out of range.
        ShapeError: If something does not fit the inputs.
        NonFiniteError: If a weight or number is NaN or infinite.
        MemoryLimitError: If factors or samples would not fit.

    Source: arXiv:2502.01032 for MLPs; Stein's identity for gated layers and any Σ.
    """
    layers, run = layers_and_run(module_or_weights)
    return fit_layers(
        layers,
        run,
        mean=mean,
        covariance=covariance,
        data=data,
        generator=generator,
        samples=samples,
        threshold=threshold,
    )


def layers_and_run(subject: Subject) -> tuple[tuple[Layer, ...], Run]:
    """Return the layers of what was passed, and the function that they are, in float64."""
    if isinstance(subject, MLPWeights | GLUWeights):
        layers = (in_float64(subject),)
        return layers, layers[0]
    if isinstance(subject, list | tuple):
        return chained(subject)
    if isinstance(subject, LayerView):
        layers = (subject.weights(torch.float64),)
        return layers, layers[0]
    if isinstance(subject, LoadedModel) and subject.module is None:
        return chained(network_of(subject))
    if not isinstance(subject, nn.Module | LoadedModel) and hasattr(subject, "get_params"):
        return chained(network_of(from_sklearn(subject)))
    module, _ = given_model(subject, "a quadratic fit", "bl.quadratic_fit({})")
    if not isinstance(module, nn.Module):
        raise UsageError(
            f"a quadratic fit reads a module or weights, got a {type(module).__name__}: pass a "
            "torch.nn.Module, a fitted MLP of scikit-learn, bl.MLPWeights or bl.GLUWeights."
        )
    if isinstance(module, BilinearTransformer):
        raise UsageError(
            "a transformer is no MLP: fit one of its MLPs, bl.quadratic_fit(model.blocks[0].mlp)."
        )
    for name, parameter in module.named_parameters():
        check_finite(name, parameter)
    return chained(network_weights(module))


def network_of(model: LoadedModel) -> tuple[Layer, ...]:
    """Return the layers of a model of which nothing else was read."""
    if not model.network:
        names = [*model.layers]
        more = f" and {len(names) - 4} more" if len(names) > 4 else ""
        raise UsageError(
            f"{model.source} is not its layers one behind the other: fit one of them, "
            f"model.layers[name] (--layer), of {', '.join(names[:4])}{more}."
        )
    return tuple(view.weights(torch.float64) for view in model.network)


def chained(layers: Sequence[Layer]) -> tuple[tuple[Layer, ...], Run]:
    """Return layers one behind the other, checked."""
    if not layers or not all(isinstance(layer, MLPWeights | GLUWeights) for layer in layers):
        raise UsageError(
            "a sequence of layers must hold bl.MLPWeights or bl.GLUWeights, and at least one."
        )
    wide = tuple(in_float64(layer) for layer in layers)
    for index, (below, above) in enumerate(pairwise(wide)):
        if len(below.down) != above.d_in:
            raise ShapeError(
                f"layer {index} has {len(below.down)} outputs and layer {index + 1} reads "
                f"{above.d_in} inputs: they must be the same."
            )

    def run(x: Tensor) -> Tensor:
        for layer in wide:
            x = layer(x)
        return x

    return wide, run
