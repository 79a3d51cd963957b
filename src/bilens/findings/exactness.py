"""Is the reading exact: the forward pass against xᵀQx, on random inputs, in two precisions."""

from __future__ import annotations

import copy
from typing import Literal

import torch
from torch import Tensor

from bilens.algebra.directions import output_form
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_finite
from bilens.base.errors import NonFiniteError
from bilens.nn import BilinearClassifier
from bilens.records.verdict import Exactness

NUM_INPUTS = 1000
Precision = Literal["float32", "float64"]
TOLERANCES: dict[Precision, float] = {"float32": 1e-5, "float64": 1e-12}


def check_exactness(module: BilinearClassifier, seed: int) -> tuple[Exactness, ...]:
    """Return the largest |forward − (xᵀQx + b·x + c)|, with Q dense, in float32 and float64.

    The dense matrices are the ones that are decomposed; the forward pass is the module's own,
    with embedding, biases, residual path and head. The module is not changed.

    Cost: O(out · in² · 1000) time, O(in²) memory.

    Raises:
        NonFiniteError: If the numbers exceed the range of one of the two.
    """
    return tuple(_compare(module, precision, seed) for precision in TOLERANCES)


@torch.no_grad()
def _compare(module: BilinearClassifier, precision: Precision, seed: int) -> Exactness:
    dtype = torch.float32 if precision == "float32" else torch.float64
    twin = copy.deepcopy(module).to(dtype).eval()
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(
        NUM_INPUTS, twin.embed.in_features, generator=generator, dtype=torch.float64
    ).to(dtype)
    try:
        forward = check_finite("the forward pass", twin(x))
        reading = check_finite("the reading", read_densely(twin.quadratic_map(), x))
    except NonFiniteError:
        raise NonFiniteError(
            f"the weights of the model, or their products, exceed the range of {precision} "
            f"(±{torch.finfo(dtype).max:.1e}), in which an audit compares the model with its "
            "reading: scale the weights down; a factor on the head's is a factor on every logit."
        ) from None
    return compared(precision, forward, reading)


def compared(precision: Precision, forward: Tensor, reading: Tensor) -> Exactness:
    """Return how far two results of the same inputs are apart."""
    error, largest = float((forward - reading).abs().max()), float(forward.abs().max())
    relative, tolerance = error / largest if largest > 0 else error, TOLERANCES[precision]
    return Exactness(precision, error, relative, tolerance, len(forward), relative <= tolerance)


def read_densely(f: QuadraticMap, x: Tensor) -> Tensor:
    """Return f(x) through the dense matrix of each output, (batch, out)."""
    outputs = []
    for output in range(f.sizes.d_out):
        form = output_form(f, output)
        outputs.append(((x @ form.dense()) * x).sum(dim=1) + x @ form.linear + form.constant)
    return torch.stack(outputs, dim=1)
