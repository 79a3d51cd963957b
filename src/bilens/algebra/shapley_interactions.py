"""Exact interactions between pairs of inputs, for one input at hand."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.interactions.streaming_statistics import RunningTop
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.base.checks import check_count, check_finite, check_float_tensor, check_type
from bilens.base.errors import ShapeError
from bilens.base.memory import check_memory
from bilens.base.notebook import html_summary

BLOCK_BYTES = 64 * 2**20  # a block of the matrix that is streamed


@dataclass(frozen=True, eq=False)
class TopInteractions:
    """The pairs of inputs that interact most, by falling |value|.

    Attributes:
        first: (k,) int64, input i.
        second: (k,) int64, input j > i.
        values: (k,), the Shapley interaction index 2 q_ij Δ_i Δ_j, in units of the output; the
            smaller (i, j) comes first where sizes are equal.
    """

    first: Tensor
    second: Tensor
    values: Tensor

    _repr_html_ = html_summary()


def pairwise_interactions(
    form: QuadraticForm,
    x: Tensor,
    baseline: Tensor | None = None,
    *,
    memory_limit: int | str | None = None,
) -> Tensor:
    """Return the Shapley interaction index of every pair of inputs, exactly.

    It says how much setting two inputs to x at once does beyond setting each: whatever the other
    inputs are, f(both) − f(first) − f(second) + f(neither) is the same.

    Math: I_ij = 2 q_ij Δ_i Δ_j for i ≠ j, Δ = x − x₀; zeros on the diagonal.
    Cost: 2 · hidden · in² operations, 4 · in² numbers of memory. `top_interactions` builds no
        array.

    Args:
        form: one output direction of a map.
        x: (in,), any floating dtype.
        baseline: x₀, (in,); None is zero.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Returns: (in, in) float64, symmetric.

    Raises:
        UsageError: If form is no form.
        ShapeError: If x or the baseline does not fit.
        NonFiniteError: If one holds NaN or infinity, or a value overflows.
        MemoryLimitError: If the array does not fit.

    Source: M. Grabisch, M. Roubens, An axiomatic approach to the concept of interaction (1999).
    """
    left, right, weight = scaled_factors(form, x, baseline)
    check_memory(
        8 * 4 * form.d_in**2,
        f"the interactions of {form.d_in} inputs with each other",
        "use top_interactions",
        memory_limit,
    )
    half = (left.T * weight) @ right
    result = half.add_(half.T.clone())
    result.fill_diagonal_(0.0)
    return check_finite("the matrix of interactions", result)


def top_interactions(
    form: QuadraticForm, x: Tensor, k: int, baseline: Tensor | None = None
) -> TopInteractions:
    """Return the k pairs of inputs with the largest Shapley interaction index, exactly.

    Math: as `pairwise_interactions`; the upper triangle is streamed in blocks of rows.
    Cost: 2 · hidden · in² operations; memory of a float64 copy of the factors and 64 MiB.

    Args:
        form: one output direction of a map.
        x: (in,), any floating dtype.
        k: how many pairs; fewer where there are fewer.
        baseline: x₀, (in,); None is zero.

    Raises:
        UsageError: If form is no form, or k no positive integer.
        ShapeError: If x or the baseline does not fit.
        NonFiniteError: If one holds NaN or infinity, or a value overflows.
    """
    k = check_count("k", k, minimum=1)
    left, right, weight = scaled_factors(form, x, baseline)
    d_in = form.d_in
    top = RunningTop.empty(k, left.device)
    rows = max(BLOCK_BYTES // (32 * d_in), 1)
    for start in range(0, d_in - 1, rows):
        stop = min(start + rows, d_in)
        mine = slice(start, stop)
        block = (left[:, mine].T * weight) @ right[:, start:]
        block.addmm_(right[:, mine].T * weight, left[:, start:])
        check_finite("a block of interactions", block)
        i, j = torch.triu_indices(stop - start, d_in - start, offset=1, device=left.device)
        keys = (i + start) * d_in + (j + start)
        top = top.added(block[i, j], keys.__getitem__)
    return TopInteractions(top.keys // d_in, top.keys % d_in, top.values)


def scaled_factors(
    form: QuadraticForm, x: Tensor, baseline: Tensor | None
) -> tuple[Tensor, Tensor, Tensor]:
    """Return left Δ, right Δ and the weights, float64: the factors of q_ij Δ_i Δ_j."""
    check_type("form", form, QuadraticForm, "read one output of a map with f.form(u)")
    form = form.detach()
    delta = as_row("x", x, form)
    if baseline is not None:
        delta = delta - as_row("baseline", baseline, form)
    matrix = form.matrix
    return matrix.left.double() * delta, matrix.right.double() * delta, matrix.weight.double()


def as_row(name: str, row: Tensor, form: QuadraticForm) -> Tensor:
    """Return one finite input, (in,) float64."""
    shape = check_float_tensor(name, row)
    if shape != (form.d_in,):
        raise ShapeError(f"{name} has shape {shape}; expected ({form.d_in},), one input: x[i].")
    return row.detach().to(form.linear.device).double()
