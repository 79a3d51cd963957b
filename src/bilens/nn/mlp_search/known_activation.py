"""Telling an activation by its values: names differ from library to library, functions do not."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import get_args

import torch
from torch import Tensor

from bilens.algebra.approximation.activation import Activation, ActivationName

POINTS = torch.cat([torch.linspace(-8, 8, 161), torch.tensor([-40.0, -20.0, 20.0, 40.0])]).double()
INNER_SCALES = (1.0, 1.702)  # the second is that of the quick GELU
CURVED = tuple(name for name in get_args(ActivationName) if name not in ("identity", "leaky_relu"))
SMALLEST_SCALE = 1e-6  # below it a function is a constant
TOLERANCE = 1e-6  # GELU and its tanh form are 5e-4 apart, constants in float32 1e-8


def known_activation(function: Callable[[Tensor], object]) -> Activation | None:
    """Return the activation that a function is, entry by entry; None if it is none that is known.

    Args:
        function: of a float64 tensor; whatever it raises means that it is none.
    """
    values = values_of(function)
    return None if values is None else activation_through(POINTS, values)


@dataclass(frozen=True)
class ScaledActivation:
    """scale · φ(inner · t) + shift."""

    activation: Activation
    inner: float
    scale: float
    shift: float


def scaled_activation(function: Callable[[Tensor], object]) -> ScaledActivation | None:
    """Return an activation between numbers, as in t · sigmoid(1.702 t); None for none."""
    values = values_of(function)
    if values is None:
        return None
    for inner in INNER_SCALES:
        for activation in map(Activation, CURVED):
            columns = torch.stack([activation(inner * POINTS), torch.ones_like(POINTS)], dim=1)
            scale, shift = torch.linalg.lstsq(columns, values[:, None]).solution[:, 0].tolist()
            rest = (columns @ columns.new_tensor([scale, shift]) - values).abs()
            if abs(scale) > SMALLEST_SCALE and bool((rest <= TOLERANCE * (1 + values.abs())).all()):
                return ScaledActivation(activation, inner, scale, shift)
    return None


def is_square(function: Callable[[Tensor], object]) -> bool:
    """Tell whether a function is t², which is a product of two equal branches."""
    values = values_of(function)
    return values is not None and torch.allclose(values, POINTS.square(), rtol=TOLERANCE)


def values_of(function: Callable[[Tensor], object]) -> Tensor | None:
    """Return what somebody else's function makes of `POINTS`; None if it is none of entries."""
    try:
        with torch.no_grad():
            values, some = function(POINTS[None].clone()), function(POINTS[None, ::2].clone())
    except Exception:  # asked with an input that it may not expect
        return None
    if not isinstance(values, Tensor) or not isinstance(some, Tensor):
        return None
    if values.shape != (1, len(POINTS)) or not torch.allclose(values[:, ::2], some):
        return None  # of other entries too, as a normalisation is
    return values[0].double()


def activation_through(
    points: Tensor, values: Tensor, tolerance: float = TOLERANCE
) -> Activation | None:
    """Return the activation whose graph goes through points; None for none, or for several.

    Args:
        points: t, (points,).
        values: φ(t), (points,).
        tolerance: of a value, in units of 1 + |φ(t)|.
    """
    t, y = points.double(), values.double()
    found = [one for one in candidates(t, y) if goes_through(one, t, y, tolerance)]
    named = [one for one in found if one.name != "leaky_relu"]  # which has ReLU and t as ends
    chosen = named or found
    return chosen[0] if len(chosen) == 1 else None


def candidates(t: Tensor, y: Tensor) -> list[Activation]:
    """Return every activation, a leaky ReLU with the slope that points below zero show."""
    known = [Activation(name) for name in get_args(ActivationName) if name != "leaky_relu"]
    negative = t < -0.1
    if bool(negative.any()):
        known.append(Activation("leaky_relu", float((y[negative] / t[negative]).median())))
    return known


def goes_through(activation: Activation, t: Tensor, y: Tensor, tolerance: float) -> bool:
    """Tell whether φ(t) is y everywhere."""
    expected = activation(t)
    return bool(((y - expected).abs() <= tolerance * (1 + expected.abs())).all())
