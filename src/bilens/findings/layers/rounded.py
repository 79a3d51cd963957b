"""A layer as it is after its weights were stored with fewer bits."""

from __future__ import annotations

from dataclasses import fields, replace

from torch import Tensor

from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.map_changes import Kind, rounded


def rounded_layer(layer: Layer, kind: Kind) -> Layer:
    """Return a float64 layer whose weights are rounded; int8 leaves biases alone.

    Raises:
        UsageError: If a weight does not fit.
    """
    parts = {field.name: getattr(layer, field.name) for field in fields(layer)}
    short = {
        name: rounded(part, kind)
        for name, part in parts.items()
        if isinstance(part, Tensor) and (kind != "int8" or part.ndim == 2)
    }
    return replace(layer, **short)  # type: ignore[arg-type]
