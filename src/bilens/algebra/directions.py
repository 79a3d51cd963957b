"""Output directions that people ask for: one output, class-centred outputs, a contrast."""

from __future__ import annotations

import torch
from torch import Tensor

from bilens.base.checks import as_integer, check_count
from bilens.base.errors import UsageError


def raw_directions(d_out: int) -> Tensor:
    """Return the (out, out) float64 identity: row c reads output c as it is."""
    return torch.eye(check_count("d_out", d_out, minimum=1), dtype=torch.float64)


def centred_directions(d_out: int) -> Tensor:
    """Return the (out, out) float64 rows e_c − 1/out: row c reads output c against the mean.

    Adding one form to all classes changes no softmax prediction, so a reading of a class is
    defined only up to that form; the class-centred reading removes it (softmax gauge).
    """
    return raw_directions(d_out) - 1 / d_out


def contrast_direction(d_out: int, positive: int, negative: int) -> Tensor:
    """Return the (out,) float64 direction e_positive − e_negative: one logit against another.

    Raises:
        UsageError: If an index is no integer or outside the outputs, or both are the same.
    """
    outputs = range(check_count("d_out", d_out, minimum=1))
    first, second = as_integer(positive), as_integer(negative)
    if first not in outputs or second not in outputs or first == second:
        raise UsageError(
            f"a contrast needs two different outputs between 0 and {d_out - 1}, "
            f"got {positive!r} and {negative!r}."
        )
    direction = torch.zeros(len(outputs), dtype=torch.float64)
    direction[first], direction[second] = 1.0, -1.0
    return direction


def centred_basis(d_out: int) -> Tensor:
    """Return (out − 1, out) orthonormal float64 rows that span what sums to zero over the outputs.

    They are a basis of the class-centred outputs: lengths and singular values are those of
    `centred_directions`, and no row depends on the others.

    Math: row k is (e_0 + … + e_k − (k + 1) e_{k+1}) / √((k + 1)(k + 2)) (Helmert).
    """
    sizes = torch.arange(1, check_count("d_out", d_out, minimum=2), dtype=torch.float64)
    rows = torch.ones(d_out - 1, d_out, dtype=torch.float64).tril()
    rows[:, 1:] -= torch.diag(sizes)
    return rows / (sizes * (sizes + 1)).sqrt()[:, None]
