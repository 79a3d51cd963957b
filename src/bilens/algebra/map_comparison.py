"""Compares two maps: similarity, the change from one to the other, and rounded weights."""

from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gram.inner_products import (
    EPS,
    outputs_traces,
    paired_inner,
    sizes_before_cancelling,
    squared_norm_rounding,
    squared_norms,
)
from bilens.algebra.gram.kernel import Branches, nonzero
from bilens.algebra.quadratic_map import QuadraticMap, how_to_compare
from bilens.base.checks import check_choice, check_type
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

    Returns: a scalar, or (out,) where `per_output`; there NaN for an output that is zero in one of
        the maps, or cannot be told from zero because all of it may be rounding of terms that
        cancel: it has no direction. Gradients pass.
    Raises: ShapeError if the maps differ in inputs or outputs; UsageError if the measure is not
        known, the maps read different bases, or, unless `per_output`, a map as a whole cannot be
        told from zero; NonFiniteError if products of the factors overflow.
    Source: arXiv:2605.15183 (Gaussian tensor similarity), with the linear and constant terms.
    """
    check_comparable(f, g)
    check_choice("measure", measure, get_args(Measure))
    gaussian = measure == "gaussian"
    first, second = (rescaled(one, gaussian, per_output) for one in (f, g))
    product = inner(first, second, gaussian)
    cosine = product if per_output else product.sum()
    known = torch.ones_like(cosine, dtype=torch.bool)
    for name, one in (("first", first), ("second", second)):
        squared, rounding = squared_length(one, gaussian)
        if not per_output:
            squared, rounding = squared.sum(), rounding.sum()
            least = MARGIN * float(rounding)  # the length of a whole may be nothing but rounding
            if float(squared.detach()) <= least:
                raise UsageError(
                    f"the {name} map cannot be told from zero (length at most {least**0.5:.3g} of "
                    "its terms before they cancel): a cosine needs two directions."
                )
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
    size = sizes_before_cancelling(f.down, Branches.from_factors(f.left, f.right))
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
    unit = sizes_before_cancelling(b.down, Branches.from_factors(b.left, b.right))
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
            f"maps that read the {f.basis} and the {g.basis} basis cannot be compared, their "
            f"numbers are of different coordinates: {how_to_compare(f.basis, g.basis)}"
        )


STEPS = 127  # of int8 on either side of zero, which is one of its values


def map_difference(f: QuadraticMap, g: QuadraticMap) -> QuadraticMap:
    """Return x ↦ g(x) − f(x) as a map of its own, in float64."""
    # Math: D'(L'∘R') − D(L∘R) = (D'−D)(L'∘R') + D((L'−L)∘R') + D(L∘(R'−R)), primes for g. Weights
    # alone are subtracted, neuron by neuron, so the factors shrink with the difference, and what is
    # read from them is accurate however small it is. Neurons of other numbers stand side by side.
    check_comparable(f, g)
    old, new = (one.detach().to(torch.float64) for one in (f, g))
    before, after = old.tensor, new.tensor
    if before.sizes == after.sizes:
        parts = [
            (after.down - before.down, after.left, after.right),
            (before.down, after.left - before.left, after.right),
            (before.down, before.left, after.right - before.right),
        ]
    else:
        parts = [(after.down, after.left, after.right), (-before.down, before.left, before.right)]
    living = [part for down, left, right in parts if (part := alive(down, left, right))]
    if not living:  # a tensor needs a neuron
        zero = before.left.new_zeros(1, before.sizes.d_in)
        living = [(before.down.new_zeros(before.sizes.d_out, 1), zero, zero)]
    down, left, right = zip(*living, strict=True)
    tensor = BilinearTensor(torch.cat(down, dim=1), torch.cat(left), torch.cat(right))
    return QuadraticMap(
        tensor, minus(new.linear, old.linear), minus(new.constant, old.constant), f.basis
    )


def alive(down: Tensor, left: Tensor, right: Tensor) -> tuple[Tensor, Tensor, Tensor] | None:
    """Return the neurons that do anything; None where there is none."""
    kept = (down != 0).any(dim=0) & (left != 0).any(dim=1) & (right != 0).any(dim=1)
    if not bool(kept.any()):
        return None
    return down[:, kept], left[kept], right[kept]


def minus(first: Tensor | None, second: Tensor | None) -> Tensor | None:
    if second is None:
        return first
    return -second if first is None else first - second


@dataclass(frozen=True, eq=False)
class NoiseChange:
    """The mean of the two Gram matrices of a change that is independent noise in every weight."""

    output_gram: Tensor  # (out, out), the mean of ⟨ΔQ_i, ΔQ_j⟩
    input_gram: Tensor  # (in, in), the mean of Σ_c ΔQ_c²


def noise_change(f: QuadraticMap, g: QuadraticMap) -> NoiseChange:
    """Return the null expectation of the change from f to g, in closed form."""
    # Each of down, left and right gets independent entries of mean 0 and the mean square of its
    # change: sizes are kept, and only where the change lies is left to chance.
    # Math: to first order Δ = δD(L∘R) + D(δL∘R) + D(L∘δR), and with variances a, b, c of entries
    #   E ⟨ΔQ_i, ΔQ_j⟩ = a tr H · 1[i=j] + ½ (in + 1) (D diag(b ‖r_h‖² + c ‖l_h‖²) Dᵀ)_ij,
    #   E Σ_c ΔQ_c² = ¼ a · out [Lᵀ diag‖r_h‖² L + Lᵀ diag(l_h·r_h) R + its transpose
    #   + Rᵀ diag‖l_h‖² R] + ¼ b [Σ_h p_h ‖r_h‖² · I + (in + 2) Rᵀ diag(p_h) R] + the same for c
    #   with l for r; p_h = ‖D e_h‖².
    check_comparable(f, g)
    if f.sizes != g.sizes:
        raise ShapeError(
            f"maps with {f.sizes.d_hidden} and {g.sizes.d_hidden} hidden units have no weights "
            "that correspond: their change has no null distribution."
        )
    old, new = (one.detach().to(torch.float64).tensor for one in (f, g))
    down, left, right = old.down, old.left, old.right
    in_down, in_left, in_right = (
        float((after - before).square().mean())
        for before, after in ((down, new.down), (left, new.left), (right, new.right))
    )
    if torch.equal(left, right):  # an ordinary MLP: one branch, whose change counts on both sides
        in_left, in_right = 4 * in_left, 0.0
    d_out, _, d_in = old.sizes
    lefts, rights = left.square().sum(dim=1), right.square().sum(dim=1)
    mixed, size = (left * right).sum(dim=1), down.square().sum(dim=0)
    trace = float(lefts @ rights + mixed @ mixed) / 2  # of H
    moved = in_left * rights + in_right * lefts
    output = (d_in + 1) / 2 * (down * moved) @ down.T
    output.diagonal().add_(in_down * trace)
    crossed = (left.T * mixed) @ right
    own = (left.T * rights) @ left + crossed + crossed.T + (right.T * lefts) @ right
    spread = (d_in + 2) * (in_left * (right.T * size) @ right + in_right * (left.T * size) @ left)
    inputs = in_down * d_out * own + spread
    inputs.diagonal().add_(size @ moved)
    return NoiseChange(output, inputs / 4)


def noise_draw(
    f: QuadraticMap,
    g: QuadraticMap,
    generator: torch.Generator,
    embeddings: tuple[Tensor, Tensor] | None = None,
) -> QuadraticMap:
    """Return one draw of the change that `noise_change` has the mean of, to all orders."""
    # Behind an embedding the noise is in the weights as they are stored, the embedding among them.
    check_comparable(f, g)
    old, new = (one.detach().to(torch.float64).tensor for one in (f, g))
    before = [old.down, old.left, old.right]
    after = [new.down, new.left, new.right]
    if embeddings is not None:
        e, e_after = (one.detach().double() for one in embeddings)
        before[1:] = [part @ torch.linalg.pinv(e) for part in before[1:]]
        after[1:] = [part @ torch.linalg.pinv(e_after) for part in after[1:]]
        before, after = [*before, e], [*after, e_after]
    noisy = []
    for a, b in zip(before, after, strict=True):
        size = (b - a).square().mean().sqrt()
        drawn = torch.randn(a.shape, generator=generator, dtype=torch.float64)
        noisy.append(a + size * drawn.to(a))
    if torch.equal(before[1], before[2]):
        noisy[2] = noisy[1]
    down, left, right = noisy[:3]
    if embeddings is not None:
        left, right = left @ noisy[3], right @ noisy[3]
    return map_difference(f, QuadraticMap(BilinearTensor(down, left, right), basis=f.basis))


Kind = Literal["float16", "bfloat16", "int8"]
DTYPES: dict[str, torch.dtype] = {"float16": torch.float16, "bfloat16": torch.bfloat16}


def quantise(f: QuadraticMap, kind: Kind) -> QuadraticMap:
    """Return the map whose weights are rounded: what a quantised layer computes, in float64.

    Math: "float16" and "bfloat16" round every entry to the nearest; "int8" is symmetric for each
        row of down, left, right and linear, step max|row| / 127, and leaves the constant alone.
    Cost: O(hidden · (in + out) + out · in).
    Raises: UsageError if f is no map, the kind is not known, or a weight is beyond float16.
    """
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    check_choice("kind", kind, get_args(Kind))
    f = f.detach().to(torch.float64)
    tensor = f.tensor
    down, left, right = (rounded(part, kind) for part in (tensor.down, tensor.left, tensor.right))
    return QuadraticMap(
        BilinearTensor(down, left, right),
        None if f.linear is None else rounded(f.linear, kind),
        f.constant if f.constant is None or kind == "int8" else rounded(f.constant, kind),
        f.basis,
    )


def rounded(part: Tensor, kind: Kind) -> Tensor:
    if kind == "int8":
        step = part.abs().amax(dim=-1, keepdim=True) / STEPS
        safe = torch.where(step > 0, step, 1.0)
        return (part / safe).round() * safe
    result = part.to(DTYPES[kind]).double()
    if not bool(result.isfinite().all()):
        largest = float(part.abs().max())
        raise UsageError(f"a weight of size {largest:.3g} is beyond {kind}: use bfloat16 or int8.")
    return result
