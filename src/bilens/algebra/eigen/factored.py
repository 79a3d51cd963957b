"""Forms with few products: the same spectrum in the row space of the two branches."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import BalancedForms
from bilens.algebra.eigen.checked import Terms, checked_spectrum, clusters, failed
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.dense import whole_spectrum
from bilens.algebra.eigen.problem import OtherTerms, Problem
from bilens.algebra.eigen.ranking import Which, chosen_positions, with_sign

METHOD = "factored"


@dataclass(frozen=True, eq=False)
class RowSpace:
    """Q_c = Y Q'_c Yᵀ: all forms of a problem, on the space that their factors span.

    Attributes:
        small: the problem of Q', in balanced units, of width min(2 · hidden, in); its linear
            terms are zero.
        basis: Y, (in, width), orthonormal columns.
    """

    small: Problem
    basis: Tensor

    def balanced(self, forms: BalancedForms) -> BalancedForms:
        """Return the forms on the row space in a scale of their own, their units those of Q_c.

        Args:
            forms: the same on the whole input space, for what cancelled in their weights.
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
        """Return `count` orthonormal rows on which every form vanishes, (count, in).

        There are in − 2 · hidden of them at least.
        """
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(len(self.basis), count, generator=generator, dtype=self.basis.dtype)
        for _ in range(2):
            rows = rows - self.basis @ (self.basis.T @ rows)
            rows = torch.linalg.qr(rows).Q
        return rows.T


def row_space(problem: Problem, forms: BalancedForms) -> RowSpace:
    """Return the forms on the row space of their factors, by one QR for all of them.

    Math: [L; R]ᵀ = Y T (thin QR), so L = T_Lᵀ Yᵀ and R = T_Rᵀ Yᵀ.
    Cost: 4 · in · (2 · hidden)² operations, O(hidden · in) memory.

    Args:
        problem: the forms.
        forms: the same in a scale of their own, which the row space keeps.
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


def solve(
    terms: Terms,
    space: RowSpace,
    small: BalancedForms,
    form: BalancedForms,
    k: int,
    which: Which,
) -> EigenDecomposition:
    """Return k eigenpairs of one form from its whole spectrum on the row space.

    The rest of the spectrum, in − width eigenvalues, is exactly zero. All pairs are checked on
    the row space; the residuals of the k pairs come from the factors themselves.

    Args:
        terms: the linear and constant term of the form, of the width of the input.
        space: the row space.
        small: the form on it, in units of its own.
        form: the form as it came, in units of its own.
        k: how many pairs.
        which: the end of the spectrum.
    """
    spectrum = whole_spectrum(small)
    if spectrum is None:
        return failed(terms, k, which, METHOD, Status.NOT_CONVERGED)
    width, d_in = len(spectrum.values), len(terms.linear)
    none = OtherTerms(spectrum.values.new_zeros(width), terms.constant, terms.basis)
    inner = checked_spectrum(none, small, spectrum, width, "magnitude", METHOD)
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
    converged = torch.cat([inner.converged, outside])[positions] & (residuals <= inner.noise)
    complete = inner.complete & converged.all()
    labels, sizes = clusters(values, float(inner.noise))
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
