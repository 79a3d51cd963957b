"""The closest quadratic map of several layers: moments upwards, compositions downwards."""

from __future__ import annotations

from collections.abc import Sequence

from bilens.algebra.approximation.composition import closest_composition, output_moments
from bilens.algebra.approximation.gaussian_input import GaussianInput
from bilens.algebra.approximation.layer_fit import closest_to_layer
from bilens.algebra.approximation.layer_weights import Layer
from bilens.algebra.quadratic_map import QuadraticMap


def closest_to_network(layers: Sequence[Layer], assumed: GaussianInput) -> QuadraticMap:
    """Return the quadratic map closest to layers one behind the other, as far as it is closed.

    One layer: the least-squares map, exact. Two bilinear layers: likewise. Otherwise by closure:
    the input of each further layer is taken to be normal, with the mean and covariance that the
    quadratic maps below give it. The top two maps are composed and brought back to degree two, and
    so on downwards, so that the width of the result grows with the outputs of the last layer alone.

    Cost: that of `closest_composition` for each pair.

    Args:
        layers: first to last; each reads what the one before gives.
        assumed: the input of the first.

    Raises:
        MemoryLimitError: If the factors would not fit.
    """
    fits: list[QuadraticMap] = []
    inputs = [assumed]
    for layer in layers:
        fits.append(closest_to_layer(layer, inputs[-1]))
        if len(fits) < len(layers):
            moments = output_moments(fits[-1], inputs[-1])
            width = len(moments.mean)
            inputs.append(GaussianInput.of(width, moments.mean, moments.covariance))
    f = fits.pop()
    inputs.pop()
    while fits:
        f = closest_composition(f, fits.pop(), inputs.pop())
    return f


def derivation(layers: Sequence[Layer]) -> str:
    """Return how far the map of `closest_to_network` is the closest one, in words."""
    bilinear = all(layer.phi.name == "identity" for layer in layers)
    if len(layers) == 1:
        return "exact" if bilinear else "closed form, the least-squares map"
    if bilinear and len(layers) == 2:
        return "closed form, the least-squares map of two bilinear layers"
    return "closed form layer by layer, with the input of each further layer taken to be normal"


def is_exact(layers: Sequence[Layer]) -> bool:
    """Tell whether the map is the network: one layer, and no activation."""
    return len(layers) == 1 and layers[0].phi.name == "identity"
