"""What storing the weights of a classifier with fewer bits can do to what is read from them."""

from __future__ import annotations

import copy
from typing import get_args

import torch

from bilens.algebra.directions import output_form, outputs_of
from bilens.algebra.map_changes import Kind, rounded
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.certify.stability import spectrum_stability
from bilens.nn import BilinearClassifier
from bilens.records.guarantees import RoundedClass, RoundingStability

SHOWN = 5  # leading eigenvectors of each class


def rounding_stability(module: BilinearClassifier) -> tuple[RoundingStability, ...]:
    """Return, for float16, bfloat16 and int8, how far eigenvalues and eigenvectors can move.

    The weights that are stored are rounded: those of the embedding, of both branches and of the
    head. int8 has one step for each row of a matrix and leaves biases alone.

    Cost: three times that of `spectrum_stability` for each class.

    Args:
        module: a one-layer classifier in float64; it is not changed.
    """
    f = module.quadratic_map().detach()
    return tuple(_stability(module, f, kind) for kind in get_args(Kind))


def _stability(module: BilinearClassifier, f: QuadraticMap, kind: Kind) -> RoundingStability:
    try:
        short = rounded_copy(module, kind).quadratic_map().detach()
    except UsageError as error:  # a weight beyond float16
        return RoundingStability(kind, str(error), ())
    whole, short = outputs_of(f, centred=True), outputs_of(short, centred=True)
    classes = range(f.sizes.d_out)
    return RoundingStability(kind, None, tuple(_of_class(whole, short, one) for one in classes))


def _of_class(f: QuadraticMap, short: QuadraticMap, output: int) -> RoundedClass:
    found = spectrum_stability(
        output_form(f, output), output_form(short, output)
    )  # all pairs prove gaps
    return RoundedClass(
        change=found.change,
        norm=found.norm,
        movement=found.movement,
        largest=float(found.decomposition.eigenvalues.abs().max()),
        sines=tuple(found.sine[:SHOWN].tolist()),
    )


@torch.no_grad()
def rounded_copy(module: BilinearClassifier, kind: Kind) -> BilinearClassifier:
    """Return a copy whose weights are rounded.

    Raises:
        UsageError: If a weight does not fit.
    """
    twin = copy.deepcopy(module)
    for parameter in twin.parameters():
        if kind != "int8" or parameter.ndim == 2:
            parameter.copy_(rounded(parameter.detach(), kind))
    return twin
