"""The way in: eigenpairs of one form, or of a map along many output directions."""

from __future__ import annotations

import warnings
from dataclasses import fields, replace
from typing import Any, Literal, get_args

import torch
from torch import Tensor

from bilens.algebra.directions import raw_directions
from bilens.algebra.eigen import dense
from bilens.algebra.eigen.checked import failed
from bilens.algebra.eigen.decomposition import EigenDecomposition, Status
from bilens.algebra.eigen.ranking import Which
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_count, check_dense_tensor, check_memory
from bilens.errors import (
    NonFiniteError,
    NumericalError,
    ShapeError,
    TruncationWarning,
    UsageError,
)

Method = Literal["auto", "dense"]


def eigendecompose(
    form: QuadraticForm, k: int | None = None, which: Which = "magnitude", method: Method = "auto"
) -> EigenDecomposition:
    """Return eigenpairs of the Q of a form, in float64, by falling |eigenvalue|.

    Math: Q = Σ_i λ_i v_i v_iᵀ, so q(x) = Σ_i λ_i (v_i·x)² + linear·x + constant.
    Cost: O(in³ + hidden · in²) time, O(in²) memory.

    Args:
        form: the form to take apart, any floating dtype.
        k: how many pairs; None for all `in` of them.
        which: "magnitude" (largest |λ|), "largest", "smallest" (by sign), or "both": half from
            each end, the extra one from the upper end.
        method: "auto" chooses; "dense" forms Q and calls a dense solver.

    Returns:
        Pairs with residuals; eigenvalues in units of the output per squared unit of the input.

    Raises:
        UsageError: If form, k, which or method is not one of the above.
        NumericalError: If products of the factors overflow, or the solver does not converge.
        MemoryLimitError: If the dense arrays would not fit.

    Source: arXiv:2410.08417, §3.2, equations 3 and 4.
    """
    check_choices(which, method)
    if not isinstance(form, QuadraticForm):
        raise UsageError(
            f"eigendecompose takes a QuadraticForm, got a {type(form).__name__}: read one output "
            "of a map with f.form(u), or all of them with eigendecompose_all(f)."
        )
    result = dense.solve(detached(form), clip_k(k, form.d_in), which)
    if result.status in (Status.NOT_FINITE, Status.NOT_CONVERGED):
        raise NumericalError(
            f"the form of width {form.d_in} was not decomposed: {_reason(result.status)}; "
            "rescale the output direction or the factors."
        )
    return result


def eigendecompose_all(
    f: QuadraticMap,
    directions: Tensor | None = None,
    k: int | None = 2,
    which: Which = "magnitude",
    method: Method = "auto",
) -> EigenDecomposition:
    """Return eigenpairs of a map along many output directions, as one batch.

    Cost: as `eigendecompose` for each direction, one dense array at a time; the result takes
    O(directions · k · in) memory.

    Args:
        f: the map.
        directions: (num, out), one output direction a row; None reads every output as it is.
        k: how many pairs of each form; None for all `in` of them.
        which: as in `eigendecompose`.
        method: as in `eigendecompose`.

    Returns:
        A batch: `eigs[c]` is the decomposition along row c. A row that is not finite, overflows,
        or that the solver fails on is flagged in `status` and holds NaN; the others are not
        affected.

    Raises:
        ShapeError: If the directions do not have one entry for each output.
        UsageError: If k, which or method is not one of the above.
        MemoryLimitError: If the dense arrays would not fit.
    """
    check_choices(which, method)
    d_out = f.sizes.d_out
    rows = raw_directions(d_out) if directions is None else directions
    shape = check_dense_tensor("directions", rows, num_axes=2)
    if shape[1] != d_out or shape[0] == 0:
        raise ShapeError(
            f"directions has shape {shape}; expected (num, {d_out}), one output direction a row."
        )
    f = f.detach().to(torch.float64)
    kept = clip_k(k, f.sizes.d_in)
    check_memory(
        2 * 8 * len(rows) * kept * (f.sizes.d_in + 2),
        f"{kept} eigenvectors of width {f.sizes.d_in} for {len(rows)} directions",
        "ask for a smaller k, or for fewer directions at a time",
    )
    results = []
    for row in rows.detach().double():
        try:
            form = f.form(row)
        except NonFiniteError:  # the row itself, or its product with the factors
            empty = f.form(torch.zeros_like(row))
            results.append(failed(empty, kept, which, dense.METHOD, Status.NOT_FINITE))
        else:
            results.append(dense.solve(form, kept, which))
    return stack(results)


def stack(results: list[EigenDecomposition]) -> EigenDecomposition:
    """Return single decompositions as one batch."""
    tensors: dict[str, Any] = {
        field.name: torch.stack([getattr(result, field.name) for result in results])
        for field in fields(EigenDecomposition)
        if isinstance(getattr(results[0], field.name), Tensor)
    }
    statuses = tuple(result.status for result in results if isinstance(result.status, Status))
    return replace(results[0], **tensors, status=statuses)


def detached(form: QuadraticForm) -> QuadraticForm:
    """Return the form in float64, cut from the graph of gradients.

    The gradient of an eigenvector does not exist where eigenvalues meet, so none is offered.
    """
    with torch.no_grad():
        return form.to(torch.float64).detach()


def check_choices(which: str, method: str) -> None:
    """Refuse a name that is not one of the choices."""
    for name, value, allowed in (
        ("which", which, get_args(Which)),
        ("method", method, get_args(Method)),
    ):
        if value not in allowed:
            raise UsageError(f"{name}={value!r} is not known: use one of {', '.join(allowed)}.")


def clip_k(k: int | None, d_in: int) -> int:
    """Return how many pairs to compute: k, or all of them."""
    if k is None:
        return d_in
    if check_count("k", k, minimum=1) > d_in:
        warnings.warn(
            f"k={k}, but a form of {d_in} inputs has {d_in} pairs: returning all of them.",
            TruncationWarning,
            stacklevel=3,
        )
    return min(k, d_in)


def _reason(status: Status | tuple[Status, ...]) -> str:
    assert isinstance(status, Status), "one form has one status"
    return status.value
