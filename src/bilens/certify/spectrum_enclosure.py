"""Proven bounds on the eigenvalues that a decomposition left out."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof
from bilens.algebra.eigen.ranking import TIE
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm
from bilens.base.checks import check_type
from bilens.base.errors import NumericalError, ShapeError
from bilens.base.notebook import frozen_result
from bilens.certify.trust_region import norm_of

EPS = torch.finfo(torch.float64).eps
NOTHING = (torch.inf, -torch.inf)  # the interval that holds no number
UNKNOWN = (-torch.inf, torch.inf)


@dataclass(frozen=True, eq=False)
class TruncationResidual:
    """One form beside its first k pairs: E = Q − Σ_{i≤k} λ_i v_i v_iᵀ."""

    # For every x, with Πx what is left of x without v_1 … v_k: low ‖Πx‖² − slack ‖x‖² ≤ xᵀEx ≤ high
    # ‖Πx‖² + slack ‖x‖². Math: let V be the m pairs at hand, QVᵀ = VᵀΘ + R. In the basis of V and
    # its complement, Q is block diagonal, Θ beside Q⊥, plus a symmetric matrix of norm √2 ‖R‖_F at
    # most. The eigenvalues of Q and of the two blocks pair off within δ = that norm (Weyl), so that
    # one of Q⊥ lies outside the interval of what was left out by less than δ, unless it has taken
    # the place of a pair at hand as close as that.

    values: Tensor  # (m − k,), the eigenvalues at hand that were cut off
    vectors: Tensor  # (m − k, in)
    low: float  # no eigenvalue of E on the complement is smaller; −∞ if nothing is proven
    high: float  # none is larger; +∞ if nothing is proven
    slack: float  # residuals, rounding, and what the vectors fail to be orthonormal

    @property
    def size(self) -> float:
        """A proven bound on ‖E‖₂."""
        return max(abs(self.low), abs(self.high)) + self.slack


@frozen_result("low", "high", "slack")
class SpectrumEnclosure:
    """A decomposition of one form, with an interval for what it does not hold.

    With P the projection onto the vectors at hand and Q⊥ = (I − P) Q (I − P), no eigenvalue of Q⊥
    is below `low` or above `high`.

    Attributes:
        eig: the pairs at hand.
        low: of the interval; above `high` where nothing is left.
        high: of the interval.
        slack: what residuals, rounding and vectors that are not orthonormal add to the bounds, as
            in `TruncationResidual`.
    """

    eig: EigenDecomposition
    low: float
    high: float
    slack: float

    def after(self, k: int) -> TruncationResidual:
        """Return the eigenpairs behind the first k, with bounds on all eigenvalues left out."""
        values, vectors = self.eig.eigenvalues[k:], self.eig.eigenvectors[k:]
        if len(self.eig.eigenvalues) == k and self.low > self.high:  # nothing is left at all
            return TruncationResidual(values, vectors, 0.0, 0.0, self.slack)
        low = min([self.low, *values.tolist()])
        return TruncationResidual(
            values, vectors, low, max([self.high, *values.tolist()]), self.slack
        )


def enclose_spectrum(eig: EigenDecomposition) -> SpectrumEnclosure:
    """Enclose the eigenvalues of one form that a decomposition does not hold, with proof.

    Cost: O(k² · in) for k pairs of vectors.

    Raises: NumericalError if the decomposition did not converge.
    """
    eig.check_usable()
    values, vectors = eig.eigenvalues, eig.eigenvectors
    overlap = vectors @ vectors.T
    overlap.diagonal().sub_(1)
    residual = norm_of(eig.residuals) + len(values) ** 0.5 * eig.rounding_bound
    largest = float(values.abs().max())
    slack = float(2**0.5 * residual) + float(overlap.norm()) * largest
    slack += EPS * (vectors.shape[1] + len(values) + 16) * largest  # of products with an input
    low, high = left_out(eig)
    return SpectrumEnclosure(
        eig, -weyl_shift(-low, -values, slack), weyl_shift(high, values, slack), slack
    )


def left_out(eig: EigenDecomposition) -> tuple[float, float]:
    """Return the interval that holds every eigenvalue of Q that is not at hand, up to noise."""
    values = eig.eigenvalues.sort(descending=True).values
    if len(values) == eig.eigenvectors.shape[-1]:
        return NOTHING
    if not bool(eig.complete):
        return UNKNOWN
    if eig.proof is Proof.RANK:
        return 0.0, 0.0
    if eig.which == "magnitude":
        size = float(values.abs().min()) * (1 + TIE)
        return -size, size
    upper = len(values) - len(values) // 2
    if eig.which == "both" and upper < len(values):
        low, high = float(values[upper]), float(values[upper - 1])
        return low - TIE * abs(low), high + TIE * abs(high)
    return UNKNOWN


def weyl_shift(edge: float, values: Tensor, delta: float) -> float:
    """Return the largest that an eigenvalue of Q⊥ can be, if those left out are at most `edge`."""
    if abs(edge) == torch.inf:
        return edge
    for value in values.sort().values.tolist():
        if edge - delta < value <= edge + delta:
            edge = value + delta
    return edge + delta


def quadratic_difference(first: QuadraticForm, second: QuadraticForm) -> QuadraticForm:
    """Return the quadratic part of first − second, float64, the neurons of both side by side."""
    one, other = (form.detach().to(torch.float64).matrix for form in (first, second))
    factors = InteractionMatrix(
        torch.cat([one.left, other.left]),
        torch.cat([one.right, other.right]),
        torch.cat([one.weight, -other.weight]),
    )
    zero = one.weight.new_zeros(())
    return QuadraticForm(factors, zero.expand(first.d_in), zero, first.basis)


def each_form(eig: EigenDecomposition) -> Iterator[EigenDecomposition]:
    """Yield the decompositions of a batch one by one; a single one alone."""
    check_type("eig", eig, EigenDecomposition, "use eigendecompose or eigendecompose_all")
    if eig.eigenvalues.ndim > 2:
        raise ShapeError(f"the batch has shape {tuple(eig.complete.shape)}; expected one axis.")
    if eig.eigenvalues.ndim == 1:
        yield eig
        return
    for index in range(len(eig)):
        yield eig[index]


def check_finite_bound(bound: float) -> float:
    if not abs(bound) < torch.inf:
        raise NumericalError("radius² · |λ| is beyond float64: rescale the form or the radius.")
    return bound
