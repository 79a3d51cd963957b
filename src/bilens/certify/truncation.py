"""Bounds the change of a form where its k leading eigenpairs alone are kept."""

from collections.abc import Sequence

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Status, checked_k
from bilens.algebra.eigen.proofs import in_units
from bilens.algebra.eigen.solver import problem_of_form
from bilens.algebra.gaussian import GaussianMoments, covariance_root
from bilens.algebra.gram.inner_products import squared_norm_rounding, squared_norms
from bilens.algebra.quadratic_form import QuadraticForm, checked_vector
from bilens.base.checks import check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result
from bilens.certify.inputs import checked_inputs, checked_number
from bilens.certify.spectrum_enclosure import (
    check_finite_bound,
    each_form,
    enclose_spectrum,
    quadratic_difference,
)

REACHED = 1e-6  # relative: a bound that an input reaches to this is called attained
NOT_PROVEN = (
    "nothing is proven about the eigenvalues that were left out: decompose with verify=True, with "
    'which="magnitude" and a larger k, or with k=None for all pairs'
)


@frozen_result()
class TruncationError:
    """sup |q(x) − q_k(x)| over ‖x‖ ≤ radius, of one form or a batch of them.

    Assumes that x is written in the basis of the decomposition, where the vectors are
    orthonormal, and exact arithmetic in q and q_k; rounding of the eigenpairs is in the bound.

    Attributes:
        bound: (...), the supremum is at most this; infinite for a form of a batch about which
            nothing is proven, or that did not pass its checks.
        reached: (...), what |q − q_k| is at `example` at least.
        example: (..., in), radius · v_j, the first pair that was cut off, or one of equal size;
            zeros where no such pair is at hand.
        attained: (...) bool, `reached` is within 1e-6 of the bound, which is no mere rounding.
        k: how many pairs were kept.
        radius: of the ball, in units of the input.
        basis: in which ‖x‖ is measured.
    """

    bound: Tensor
    reached: Tensor
    example: Tensor
    attained: Tensor
    k: int
    radius: float
    basis: str
    to_frame = frame("bound", "form")


@frozen_result()
class InputBounds:
    """low ≤ q(x) − q_k(x) ≤ high for each input.

    Attributes:
        low: (..., batch), in units of the output.
        high: (..., batch).
        left: (..., batch), ‖Πx‖², what of ‖x‖² the kept vectors do not see.
        k: how many pairs were kept.
    """

    low: Tensor
    high: Tensor
    left: Tensor
    k: int
    to_frame = frame("low", "form", "row")


def truncation_error(
    eig: EigenDecomposition, k: int, radius: float, form: QuadraticForm | None = None
) -> TruncationError:
    """Return a proven bound on |q(x) − q_k(x)| over ‖x‖ ≤ radius, and an input that reaches it.

    Math: sup = radius² ‖E‖₂ with E = Q − Q_k; ‖E‖₂ = |λ_{k+1}| for `which="magnitude"`, attained at
        radius · v_{k+1}. The bound adds residuals and rounding. That no larger eigenvalue was
        missed has to be proven by the decomposition: all pairs, or `complete`. Where it is not,
        the form itself gives ‖E‖₂ ≤ ‖E‖_F, from its factors, and no example.
    Cost: O(pairs² · in) a form; with `form`, O((hidden + k)² · in).

    Args:
        eig: of one form, or a batch; the pair k + 1 is needed for a bound that is attained.
        k: how many pairs are kept.
        radius: of the ball, in units of the input.
        form: the form that was decomposed, where `eig` is of one form and not complete.

    Raises: UsageError if k or radius does not fit, or, for one form, nothing is proven;
        NumericalError if a single form did not pass its checks, or the bound overflows.
    Source: Eckart–Young; docs/guarantees.md.
    """
    forms = list(each_form(eig))
    k, radius = checked_k(eig, k), checked_number("radius", radius)
    single = eig.eigenvalues.ndim == 1
    if form is not None:
        check_own_form(form, eig)
    found = [_one_error(one, k, radius, form, single) for one in forms]
    bound, reached, example = of_each(found, eig)
    attained = (reached >= (1 - REACHED) * bound) & bound.isfinite()
    return TruncationError(bound, reached, example, attained, k, radius, eig.basis)


def _one_error(
    eig: EigenDecomposition, k: int, radius: float, form: QuadraticForm | None, single: bool
) -> tuple[Tensor, Tensor, Tensor]:
    nothing = eig.linear.new_tensor(torch.inf), eig.linear.new_zeros(()), 0 * eig.linear
    if eig.status is not Status.OK and not single:
        return nothing
    rest = enclose_spectrum(eig).after(k)
    size = rest.size
    if size == torch.inf and form is not None:
        size = frobenius_bound(quadratic_difference(form, eig.truncate(k)))
    if size == torch.inf:
        if single:
            raise UsageError(f"{NOT_PROVEN}, or pass the form itself: form=...")
        return nothing
    reached, example = 0.0, torch.zeros_like(eig.linear)  # a unit vector on which |E| is large
    if len(rest.values) > 0:
        worst = int(rest.values.abs().argmax())
        sure = rest.values[worst].abs() - eig.residuals[k + worst] - eig.rounding_bound
        reached, example = max(float(sure), 0.0), rest.vectors[worst]
    bound = check_finite_bound(radius * size * radius)
    return (
        eig.linear.new_tensor(bound),
        eig.linear.new_tensor(radius * reached * radius),
        example * radius,
    )


def frobenius_bound(form: QuadraticForm) -> float:
    """Return an upper bound on ‖Q‖_F of a form, rounding included, in O(hidden² · in)."""
    forms = problem_of_form(form).forms  # their squares neither overflow nor vanish
    factors = forms.weights, forms.left, forms.right
    squared = squared_norms(*factors) + squared_norm_rounding(*factors)
    return float(in_units(squared.sqrt(), forms)[0])


def smallest_k(eig: EigenDecomposition, tolerance: float, radius: float) -> Tensor:
    """Return the smallest k whose bound in `truncation_error` is within a tolerance, (...) int64.

    Cost: O(pairs² · in) a form.

    Args:
        eig: of one form, or a batch.
        tolerance: in units of the output.
        radius: of the ball, in units of the input.

    Raises: UsageError if the pairs at hand do not do, or nothing is proven about the others;
        NumericalError if a form did not pass its checks.
    """
    forms = list(each_form(eig))
    tolerance, radius = checked_number("tolerance", tolerance), checked_number("radius", radius)
    found = []
    for index, one in enumerate(forms):
        known = enclose_spectrum(one)
        last = known.after(len(one.eigenvalues))
        tails = one.eigenvalues.abs().flip(0).cummax(dim=0).values.flip(0).tolist()
        beyond = last.size - last.slack
        bounds = [radius * (max(tail, beyond) + last.slack) * radius for tail in [*tails, 0.0]]
        if not bounds[-1] <= tolerance:
            name = f"form {index}" if len(forms) > 1 else "the form"
            advice = NOT_PROVEN if last.size == torch.inf else "decompose with a larger k"
            raise UsageError(
                f"{name} has {len(tails)} pairs, whose bound is {bounds[-1]:.3g} at best; "
                f"{tolerance:.3g} was asked for: {advice}."
            )
        found.append(next(k for k, bound in enumerate(bounds) if bound <= tolerance))
    result = torch.tensor(found, device=eig.eigenvalues.device)
    return result[0] if eig.eigenvalues.ndim == 1 else result


def truncated_input_bound(eig: EigenDecomposition, k: int, x: Tensor) -> InputBounds:
    """Return proven bounds on q(x) − q_k(x) for each input.

    Math: λ_min ‖Πx‖² ≤ xᵀEx ≤ λ_max ‖Πx‖², λ_min and λ_max the extreme eigenvalues that were cut
        off, Π the projector on the complement of v_1 … v_k; residuals and rounding are added.
    Cost: O(batch · k · in + pairs² · in) a form.

    Args:
        eig: of one form, or a batch.
        k: how many pairs are kept.
        x: (batch, in), any floating dtype.

    Raises: UsageError if k does not fit, or nothing is proven about the eigenvalues left out;
        ShapeError if x does not fit; NonFiniteError if it holds NaN or infinity; NumericalError if
        a form did not pass its checks.
    """
    forms = list(each_form(eig))
    k, x = checked_k(eig, k), checked_inputs(x, eig.eigenvectors.shape[-1])
    whole = x.square().sum(dim=1)
    found = []
    for one in forms:
        rest = enclose_spectrum(one).after(k)
        if rest.size == torch.inf:
            raise UsageError(f"{NOT_PROVEN}.")
        kept = one.eigenvectors[:k]
        left = (x - (x @ kept.T) @ kept).square().sum(dim=1)
        spare = rest.slack * whole
        found.append((rest.low * left - spare, rest.high * left + spare, left))
    low, high, left = of_each(found, eig)
    return InputBounds(low, high, left, k)


def of_each(found: Sequence[Sequence[Tensor]], eig: EigenDecomposition) -> Sequence[Tensor]:
    """Stack the results of all forms into a batch; for a single form return its own."""
    batch = [torch.stack(parts) for parts in zip(*found, strict=True)]
    return batch if eig.eigenvalues.ndim > 1 else [parts[0] for parts in batch]


def check_own_form(form: QuadraticForm, eig: EigenDecomposition) -> None:
    check_type("form", form, QuadraticForm, "pass the form that was decomposed")
    if eig.eigenvalues.ndim != 1 or form.d_in != eig.eigenvectors.shape[-1]:
        raise ShapeError(
            f"form reads {form.d_in} inputs, the vectors have shape "
            f"{tuple(eig.eigenvectors.shape)}; expected (pairs, {form.d_in}) of one form: eigs[c]."
        )
    if form.basis != eig.basis or not torch.equal(form.linear.detach().double(), eig.linear):
        raise UsageError(
            "form has another basis or linear term than the decomposition: pass the form that was "
            "decomposed."
        )


def truncation_moments(
    eig: EigenDecomposition, k: int, mean: Tensor, covariance: Tensor
) -> GaussianMoments:
    """Return mean and variance of q(x) − q_k(x) for x ~ N(μ, Σ), (...) each; exact up to rounding.

    For other inputs with the same μ and Σ the mean is exact, the variance is not.
    Math: E = Σ_{i>k} λ_i v_i v_iᵀ; mean tr EΣ + μᵀEμ, variance 2 tr EΣEΣ + 4 μᵀEΣEμ. With
        G = VΣVᵀ over the pairs cut off: Σ_i λ_i (G_ii + (v_i·μ)²), and
        Σ_ij λ_i λ_j (2 G_ij² + 4 (v_i·μ) G_ij (v_j·μ)).
    Cost: O(in³) once, O(pairs · in · (in + pairs)) a form.

    Args:
        eig: of one form or a batch, with all pairs.
        k: how many pairs are kept.
        mean: μ, (in,).
        covariance: Σ, (in, in), symmetric, no eigenvalue below zero.

    Raises: UsageError if k does not fit, pairs are missing, or Σ is no covariance; ShapeError if μ
        or Σ does not fit; NonFiniteError if one holds NaN or infinity; NumericalError if a form did
        not pass its checks.
    Source: the moments of a Gaussian quadratic form; docs/guarantees.md.
    """
    forms = list(each_form(eig))
    k, d_in = checked_k(eig, k), eig.eigenvectors.shape[-1]
    centre = checked_vector("mean", mean, d_in)
    root = covariance_root(covariance, d_in)
    if eig.eigenvalues.shape[-1] < d_in:
        raise UsageError(
            f"{eig.eigenvalues.shape[-1]} of {d_in} pairs are at hand: decompose with k=None for "
            "all of them."
        )
    found = []
    for one in forms:
        one.check_usable()
        values, vectors = one.eigenvalues[k:], one.eigenvectors[k:]
        reached = vectors @ root
        gram, at_mean = reached @ reached.T, vectors @ centre
        weighed = 2 * gram.square() + 4 * torch.outer(at_mean, at_mean) * gram
        found.append((values @ (gram.diagonal() + at_mean.square()), values @ weighed @ values))
    means, variances = of_each(found, eig)
    return GaussianMoments(means, variances.clamp(min=0.0))  # below it, rounding
