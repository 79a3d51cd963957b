"""How alike two quadratic maps are, from their weights alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.algebra.gram.inner_products import outputs_traces, paired_inner
from bilens.algebra.gram.kernel import Branches, nonzero
from bilens.algebra.gram.squared_norms import (
    EPS,
    sizes_before_cancelling,
    squared_norm_rounding,
    squared_norms,
)
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import ShapeError, UsageError

Measure = Literal["frobenius", "gaussian"]
MARGIN = 100  # times its rounding: a squared length above that keeps two digits at least


def similarity(
    f: QuadraticMap, g: QuadraticMap, measure: Measure = "frobenius", per_output: bool = False
) -> Tensor:
    """Return the cosine between two maps, −1 … 1, in float64; 1 only for f = a · g with a > 0.

    Both read the same input and have the same outputs, which are paired one to one. The cosine
    does not see how a map is written (branches swapped, neurons in another order or scale); it
    does see another scale of a single input.

    **Classes.** Adding one form to all classes changes no softmax prediction, but it changes this
    cosine, of the whole and of each class. Compare classifiers class-centred:
    `similarity(*(f.compose_output(centred_directions(m).to(f.dtype)) for f in (f, g)))` for m
    classes.

    Math: ⟨f, g⟩ / √(⟨f, f⟩ ⟨g, g⟩), ⟨f, g⟩ summed over outputs, or for each of them:
        "frobenius": ⟨A, B⟩ = tr AB, of the quadratic parts alone.
        "gaussian": E f(x) g(x) over x ~ N(0, I), of the whole maps x ↦ xᵀAx + a·x + α:
            (tr A + α)(tr B + β) + 2 tr AB + a·b.
    Cost: O((hidden + hidden')² · (in + out)) time. Memory: a float64 copy of `down`, and of the
        linear terms where they take part, and at most 128 MiB beside the maps; of `left` and
        `right` no copy is made. (A graph of gradients keeps every block, O(hidden · hidden').)

    Args:
        f: the first map, any floating dtype.
        g: the second map.
        measure: "frobenius" or "gaussian".
        per_output: one cosine for each output, instead of one for the maps as a whole.

    Returns:
        A scalar, or (out,) where `per_output`. There an output has NaN if it is zero in one of the
        maps, or cannot be told from zero because all of it may be rounding of terms that cancel:
        it has no direction, so there is no cosine. Gradients pass.

    Raises:
        ShapeError: If the maps differ in inputs or outputs.
        UsageError: If the measure is not known, the maps read different bases, or, unless
            `per_output`, a map as a whole cannot be told from zero.
        NonFiniteError: If products of the factors overflow.

    Source: arXiv:2605.15183 (Gaussian tensor similarity), with the linear and constant terms.
    """
    check_comparable(f, g)
    if measure not in get_args(Measure):
        raise UsageError(
            f"measure={measure!r} is not known: use one of {', '.join(get_args(Measure))}."
        )
    gaussian = measure == "gaussian"
    first, second = (rescaled(one, gaussian, per_output) for one in (f, g))
    product = inner(first, second, gaussian)
    cosine = product if per_output else product.sum()
    known = torch.ones_like(cosine, dtype=torch.bool)
    for name, one in (("first", first), ("second", second)):
        squared, rounding = squared_length(one, gaussian)
        if not per_output:
            squared, rounding = squared.sum(), rounding.sum()
            check_nonzero(name, squared, rounding)
        told = squared > MARGIN * rounding
        known = known & told
        cosine = cosine / squared.where(told, 1.0).sqrt()  # NaN would spoil all gradients
    return cosine.clamp(-1.0, 1.0).where(known, torch.nan)


@dataclass(frozen=True, eq=False)
class Scaled:
    """A map in a scale of its own: `down`, `linear` and `constant` float64, the rest as it came."""

    down: Tensor  # (out, hidden)
    left: Tensor  # (hidden, in)
    right: Tensor  # (hidden, in)
    linear: Tensor | None  # (out, in); None where it is zero or takes no part
    constant: Tensor | None  # (out,); None where it is zero or takes no part


def inner(f: Scaled, g: Scaled, gaussian: bool) -> Tensor:
    """Return ⟨f_c, g_c⟩ for every output, (out,)."""
    product = paired_inner(f.down, f.left, f.right, g.down, g.left, g.right)
    if not gaussian:
        return product
    product = 2 * product + mean(f) * mean(g)
    if f.linear is None or g.linear is None:
        return product
    return product + (f.linear * g.linear).sum(dim=1)


def squared_length(f: Scaled, gaussian: bool) -> tuple[Tensor, Tensor]:
    """Return ⟨f_c, f_c⟩ and a bound on its rounding for every output, (out,) each."""
    squared = squared_norms(f.down, f.left, f.right)
    rounding = squared_norm_rounding(f.down, f.left, f.right)
    if not gaussian:
        return squared, rounding
    squared = 2 * squared + mean(f).square()
    size = sizes_before_cancelling(f.down, Branches.of(f.left, f.right))
    if f.constant is not None:
        size = size + f.constant.detach().abs()
    mean_rounding = EPS * (sum(f.left.shape) + 16) * size
    if f.linear is not None:
        squared = squared + f.linear.square().sum(dim=1)
    return squared, 2 * rounding + mean_rounding.square()


def mean(f: Scaled) -> Tensor:
    """Return E f(x) over x ~ N(0, I): tr Q_c + constant_c, (out,)."""
    traces = outputs_traces(f.down, f.left, f.right)
    return traces if f.constant is None else traces + f.constant


def rescaled(f: QuadraticMap, gaussian: bool, per_output: bool) -> Scaled:
    """Return f / a, a > 0, so that no square overflows or vanishes."""
    b = f.tensor
    unit = sizes_before_cancelling(b.down, Branches.of(b.left, b.right))
    linear = f.linear.double() if gaussian and f.linear is not None else None
    constant = f.constant.double() if gaussian and f.constant is not None else None
    if linear is not None:
        unit = torch.maximum(unit, linear.detach().abs().amax(dim=1))
    if constant is not None:
        unit = torch.maximum(unit, constant.detach().abs())
    unit = nonzero(unit if per_output else unit.max().expand_as(unit))
    return Scaled(
        b.down.double() / unit[:, None],
        b.left,
        b.right,
        None if linear is None else linear / unit[:, None],
        None if constant is None else constant / unit,
    )


def check_comparable(f: QuadraticMap, g: QuadraticMap) -> None:
    """Refuse what cannot be paired output by output over one input."""
    for name, one in (("f", f), ("g", g)):
        check_type(name, one, QuadraticMap, "use the layer's quadratic_map()")
    mine, theirs = f.sizes, g.sizes
    if (mine.d_in, mine.d_out) != (theirs.d_in, theirs.d_out):
        raise ShapeError(
            f"maps {mine.d_in} → {mine.d_out} and {theirs.d_in} → {theirs.d_out} cannot be "
            "compared: inputs and outputs must be the same, one to one. Bring them to one space "
            "with compose_input and compose_output."
        )
    if f.basis != g.basis:
        raise UsageError(
            f"maps that read the {f.basis} and the {g.basis} basis cannot be compared: bring both "
            "into one basis with compose_input."
        )


def check_nonzero(name: str, squared: Tensor, rounding: Tensor) -> None:
    """Refuse the squared length of a whole map that may be nothing but rounding."""
    least = MARGIN * float(rounding)
    if float(squared.detach()) <= least:
        raise UsageError(
            f"the {name} map cannot be told from zero (length at most {least**0.5:.3g} of its "
            "terms before they cancel): a cosine needs two directions."
        )
