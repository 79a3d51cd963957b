"""Forms with few products: the same spectrum in the row space of the two branches."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.dense import (
    array_bytes,
    array_work,
    checked_spectrum,
    failed,
    whole_spectrum,
)
from bilens.algebra.eigen.forms import BalancedForms, OtherTerms, Problem
from bilens.algebra.eigen.ranking import Which, chosen_positions, clusters, with_sign
from bilens.algebra.eigen.solver import (
    Cost,
    OneForm,
    Precision,
    Sizes,
    Solver,
    WholeSpectrumSolver,
)
from bilens.base.memory import MemoryEstimate


class FactoredSolver(WholeSpectrumSolver):
    """One QR for all forms, then dense matrices of the width of the two branches together."""

    name: ClassVar[Solver] = "factored"

    def suits(self, sizes: Sizes, /) -> bool:
        """Where the branches together are less wide than the input."""
        return 2 * sizes.d_hidden < sizes.d_in

    def workspace(self, sizes: Sizes) -> int:
        """The branches scaled, stacked, copied, and the result of QR; an array; a block."""
        branches = 2 * sizes.d_hidden * sizes.d_in
        return 6 * 8 * branches + array_bytes(self.width(sizes)) + sizes.conversion_bytes

    def width(self, sizes: Sizes) -> int:
        """Return the width of the row space."""
        return min(2 * sizes.d_hidden, sizes.d_in)

    def cost(self, sizes: Sizes, _precision: Precision, allowed: int, /) -> Cost:
        """The QR for each portion, then arrays, form by form."""
        width = self.width(sizes)
        fixed = sizes.result_bytes + self.workspace(sizes)
        portion = sizes.portion(allowed - fixed)
        lift = 2.0 * sizes.k * width * sizes.d_in
        qr = 4.0 * sizes.d_in * width**2 * -(-sizes.num // portion)
        work = qr + sizes.num * (array_work(sizes, width) + lift)
        return Cost(work, MemoryEstimate(fixed, sizes.problem_bytes), 1, portion)

    def prepared(self, problem: Problem, forms: BalancedForms) -> OneForm:
        """Return what decomposes one form, after the QR."""
        space = row_space(problem, forms)
        small = space.balanced(forms)
        return lambda index, k, which: factored_pairs(
            problem.terms(index), space, small.one(index), forms.one(index), k, which
        )


@dataclass(frozen=True, eq=False)
class RowSpace:
    """Q_c = Y Q'_c Yᵀ: all forms of a problem, on the space that their factors span."""

    small: Problem  # of Q', in balanced units, of width min(2 · hidden, in), without linear terms
    basis: Tensor  # Y, (in, width), orthonormal columns

    def balanced(self, forms: BalancedForms) -> BalancedForms:
        """Return the forms on the row space in a scale of their own, their units those of Q_c.

        `forms` are the same on the whole input space, for what cancelled in their weights.
        """
        small = self.small.balanced()
        sizes = forms.sizes_before_cancelling / small.units
        return replace(
            small,
            units=small.units * forms.units,
            sizes_before_cancelling=small.sizes_before_cancelling.maximum(sizes),
        )

    def lift(self, vectors: Tensor) -> Tensor:
        """Return vectors of the input space, (..., width) → (..., in)."""
        return vectors @ self.basis.T

    def outside(self, count: int) -> Tensor:
        """Return orthonormal rows on which every form vanishes, at most in − 2 · hidden of them."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(len(self.basis), count, generator=generator, dtype=self.basis.dtype)
        for _ in range(2):
            rows = rows - self.basis @ (self.basis.T @ rows)
            rows = torch.linalg.qr(rows).Q
        return rows.T


def row_space(problem: Problem, forms: BalancedForms) -> RowSpace:
    """Return the forms on the row space of their factors: 4 · in · (2 · hidden)² operations.

    Math: [L; R]ᵀ = Y T (one thin QR), so L = T_Lᵀ Yᵀ and R = T_Rᵀ Yᵀ.
    """
    hidden = problem.d_hidden
    stacked = torch.cat([forms.left, forms.right]).double()
    basis, triangle = torch.linalg.qr(stacked.T)
    small = replace(
        problem,
        left=triangle[:, :hidden].T.contiguous(),
        right=triangle[:, hidden:].T.contiguous(),
        weights=forms.weights,
        linear=problem.linear.new_zeros(()).expand(problem.num, triangle.shape[0]),
    )
    return RowSpace(small, basis)


def factored_pairs(
    terms: OtherTerms,
    space: RowSpace,
    small: BalancedForms,
    form: BalancedForms,
    k: int,
    which: Which,
) -> EigenDecomposition:
    """Return k eigenpairs of one form from its whole spectrum on the row space.

    The rest of the spectrum, in − width eigenvalues, is exactly zero. All pairs are checked on
    the row space; the residuals of the k pairs come from the factors themselves.
    """
    name = FactoredSolver.name
    spectrum = whole_spectrum(small)
    if spectrum is None:
        return failed(terms, k, which, name, Status.NOT_CONVERGED)
    width, d_in = len(spectrum.values), len(terms.linear)
    none = OtherTerms(spectrum.values.new_zeros(width), terms.constant, terms.basis)
    inner = checked_spectrum(none, small, spectrum, width, "magnitude", name)
    values = torch.cat([inner.eigenvalues, inner.eigenvalues.new_zeros(d_in - width)])
    positions = chosen_positions(values, k, which)
    inside = positions < width
    vectors = values.new_empty(k, d_in)
    vectors[inside] = space.lift(inner.eigenvectors[positions[inside]])
    vectors[~inside] = space.outside(int((~inside).sum()))
    unit, kept = form.units[0], values[positions]
    residuals = form.products(vectors[None])[0] - (kept / unit)[:, None] * vectors
    residuals = residuals.norm(dim=1) * unit
    outside = torch.ones_like(values[width:], dtype=torch.bool)
    found = torch.cat([inner.converged, outside])[positions]
    converged = found & (residuals <= inner.rounding_bound)
    complete = inner.complete & converged.all()
    labels, sizes = clusters(values, float(inner.rounding_bound))
    nothing = torch.ones_like(inner.norm)
    return replace(
        inner,
        eigenvalues=kept,
        eigenvectors=with_sign(vectors),
        residuals=residuals,
        converged=converged,
        explained=(kept / inner.norm).square().sum() if inner.norm > 0 else nothing,
        complete=complete,
        cluster=labels[positions],
        cluster_size=sizes[positions],
        linear=terms.linear,
        constant=terms.constant,
        which=which,
        status=Status.OK if bool(complete) else Status.RESIDUAL_TOO_LARGE,
        proof=Proof.SPECTRUM if bool(complete) else Proof.NONE,
    )
