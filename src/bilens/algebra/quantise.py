"""A map as it is after its weights were rounded to fewer bits."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import UsageError

Kind = Literal["float16", "bfloat16", "int8"]
DTYPES: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}
STEPS = 127  # of int8 on either side of zero, which is one of its values


def quantise(f: QuadraticMap, kind: Kind) -> QuadraticMap:
    """Return the map whose weights are rounded: what a quantised layer computes, in float64.

    Math: "float16" and "bfloat16" round every entry to the nearest; "int8" is symmetric for each
        row of down, left, right and linear, step max|row| / 127, and leaves the constant alone.
    Cost: O(hidden · (in + out) + out · in).

    Args:
        f: the map.
        kind: "float16", "bfloat16" or "int8".

    Raises:
        UsageError: If f is no map, the kind is not known, or a weight is beyond float16.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    if kind not in get_args(Kind):
        raise UsageError(f"kind={kind!r} is not known: use one of {', '.join(get_args(Kind))}.")
    f = f.detach().to(torch.float64)
    tensor = f.tensor
    parts = (rounded(part, kind) for part in (tensor.down, tensor.left, tensor.right))
    return QuadraticMap(
        BilinearTensor(*parts),
        None if f.linear is None else rounded(f.linear, kind),
        f.constant if f.constant is None or kind == "int8" else rounded(f.constant, kind),
        f.basis,
    )


def rounded(part: Tensor, kind: Kind) -> Tensor:
    """Return a float64 part of a map, rounded.

    Raises:
        UsageError: If a weight does not fit.
    """
    if kind == "int8":
        step = part.abs().amax(dim=-1, keepdim=True) / STEPS
        safe = torch.where(step > 0, step, 1.0)
        return (part / safe).round() * safe
    result = part.to(DTYPES[kind]).double()
    if not bool(result.isfinite().all()):
        largest = float(part.abs().max())
        raise UsageError(f"a weight of size {largest:.3g} is beyond {kind}: use bfloat16 or int8.")
    return result
