"""Solvers of whole spectra: of the array itself, or in the row space of its two branches."""

from dataclasses import dataclass, replace
from typing import ClassVar

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.proofs import EPS, SOLVER_TOLERANCE, in_units, rounding_bound
from bilens.algebra.eigen.ranking import Which, chosen_positions, clusters, ranked, with_sign
from bilens.algebra.eigen.solver import (
    EIGH,
    BalancedForms,
    OneForm,
    OtherTerms,
    Precision,
    Problem,
    Sizes,
    Solver,
    SolverCost,
    WholeSpectrumSolver,
    balance_all,
)
from bilens.base.memory import MemoryEstimate

PROBES = 4  # random vectors that compare an array with the factors it was formed from
ARRAYS = 5.5  # (n, n) float64 arrays alive at once: Q, its copy in the solver, vectors, work
# Measured on two cores, in operations of a large float64 product:
CHECKS = 5.0  # · n³, residuals and overlaps of all pairs
FORMING = 2.5  # · hidden · n², forming a matrix from the factors
CALLS = 1.6e8  # the small operations around it, a form


class DenseSolver(WholeSpectrumSolver):
    """Forms each matrix, and takes its whole spectrum."""

    name: ClassVar[Solver] = "dense"

    def suits(self, _sizes: Sizes, /) -> bool:
        return True

    def workspace(self, sizes: Sizes) -> int:
        """An array and its solver, and a block of the factors in float64."""
        return array_bytes(sizes.d_in) + sizes.conversion_bytes

    def cost(self, sizes: Sizes, _precision: Precision, allowed: int, /) -> SolverCost:
        balanced = 2 * 2 * sizes.d_hidden * sizes.d_in * sizes.factor_bytes  # and while scaled
        fixed = sizes.result_bytes + balanced + self.workspace(sizes)
        work = sizes.num * array_work(sizes, sizes.d_in)
        memory = MemoryEstimate(fixed, sizes.problem_bytes)
        return SolverCost(work, memory, 1, sizes.portion(allowed - fixed))

    def prepared(self, problem: Problem) -> OneForm:
        """Return a function that decomposes one form in 2 · hidden · in² + O(in³) operations."""

        def decompose_form(index: int, k: int, which: Which) -> EigenDecomposition:
            terms, form = problem.terms(index), problem.forms.form_at(index)
            spectrum = whole_spectrum(form)
            if spectrum is None:
                return failed(terms, k, which, self.name, Status.NOT_CONVERGED)
            return checked_spectrum(terms, form, spectrum, k, which, self.name)

        return decompose_form


def array_bytes(width: int) -> int:
    return int(ARRAYS * 8 * width**2)


def array_work(sizes: Sizes, width: int) -> float:
    residuals = 8.0 * sizes.d_hidden * sizes.d_in * sizes.k
    forming = FORMING * width**2 * sizes.d_hidden
    return forming + residuals + (EIGH + CHECKS) * width**3 + CALLS


@dataclass(frozen=True, eq=False)
class WholeSpectrum:
    """The whole spectrum that a solver found for a form written as an array."""

    values: Tensor  # (n,), in any order
    vectors: Tensor  # (n, in), rows
    residuals: Tensor  # (n,), ‖Qv − λv‖ with Q as the array
    squared_norm: Tensor  # ‖Q‖_F², from the array and not from the values
    forming_error: Tensor  # how far the array is from the factors, in Frobenius norm


def whole_spectrum(form: BalancedForms) -> WholeSpectrum | None:
    """Return all pairs of one form in its balanced unit; None if the solver failed."""
    array = form.dense(0)
    squared_norm, forming_error = array.square().sum(), distance(array, form)
    try:
        values, columns = torch.linalg.eigh(array)
    except RuntimeError:  # torch.linalg.LinAlgError is one
        return None
    if not bool(torch.isfinite(values).all() and torch.isfinite(columns).all()):
        return None
    columns = orthonormal(columns)
    residuals = torch.addcmul(array @ columns, columns, values, value=-1).norm(dim=0)
    return WholeSpectrum(values, columns.T, residuals, squared_norm, forming_error)


def spectrum_values(form: BalancedForms) -> Tensor | None:
    """Return all eigenvalues of one form in its balanced unit, (in,); None if the solver failed."""
    array = form.dense(0)
    try:
        values = torch.linalg.eigvalsh(array)
    except RuntimeError:
        return None
    return values if bool(torch.isfinite(values).all()) else None


def orthonormal(columns: Tensor) -> Tensor:
    """Return columns that are nearly orthonormal as those that are to rounding."""
    # A divide-and-conquer solver loses orthogonality between the vectors of close eigenvalues, on
    # some matrices by more than their residuals tell. One Newton–Schulz step, V − ½ V (VᵀV − I),
    # squares it.
    overlap = columns.T @ columns
    overlap.diagonal().sub_(1)
    if bool(overlap.norm() <= SOLVER_TOLERANCE / 2):
        return columns
    return columns.addmm(columns, overlap, alpha=-0.5)


def distance(array: Tensor, form: BalancedForms) -> Tensor:
    """Return an estimate of ‖array − Q‖_F: E‖Ez‖² = ‖E‖_F² for z of independent unit entries."""
    generator = torch.Generator().manual_seed(0)
    probes = torch.randn(PROBES, form.d_in, generator=generator, dtype=torch.float64).to(array)
    difference = probes @ array - form.products(probes[None])[0]
    size: Tensor = difference.norm() / PROBES**0.5
    return size


def checked_spectrum(
    terms: OtherTerms, form: BalancedForms, pairs: WholeSpectrum, k: int, which: Which, method: str
) -> EigenDecomposition:
    """Return k pairs of a *whole* spectrum of one form, after a check of all of its pairs."""
    # n orthonormal vectors with residuals R leave no room for a missing or wrong eigenvalue: the
    # eigenvalues of Q and the values pair off within ‖R‖_F (Weyl), so `complete` is claimed only if
    # ‖R‖_F, the departure from orthonormality and the error of forming the array are all within the
    # rounding bound, whatever k is. The residuals of the k pairs are measured from the factors, so
    # they check the array as well as the solver. The overlaps of n > 4,000 vectors, measured by n²
    # products that are rounded, are above the tolerance whatever the solver does, by n/4 · eps in
    # Frobenius norm: up to n · eps they count as what they can do to the values.
    squared, unit = pairs.squared_norm, form.units[0]
    bound = rounding_bound(form, squared)[0]
    overlap = pairs.vectors @ pairs.vectors.T
    overlap.diagonal().sub_(1)
    skew = overlap.norm(dim=1)
    moved = skew.norm() * pairs.values.abs().max() if skew.norm() > SOLVER_TOLERANCE else 0.0
    whole = len(pairs.values) == len(terms.linear) and bool(
        (pairs.residuals.norm() <= bound)
        & (skew.norm() <= max(SOLVER_TOLERANCE, EPS * len(skew)))
        & (pairs.forming_error <= bound)
    )
    labels, sizes = clusters(pairs.values, float(bound + moved))
    values, vectors, chosen = ranked(pairs.values, pairs.vectors, k, which)
    residuals = (form.products(vectors[None])[0] - values[:, None] * vectors).norm(dim=1)
    converged = (residuals <= bound) & (skew[chosen] <= SOLVER_TOLERANCE)
    complete = whole and bool(converged.all())
    return EigenDecomposition(
        eigenvalues=values * unit,
        eigenvectors=vectors,
        residuals=residuals * unit,
        converged=converged,
        norm=squared.sqrt() * unit,
        explained=values.square().sum() / squared if squared > 0 else torch.ones_like(squared),
        complete=converged.new_tensor(complete),
        rounding_bound=in_units(bound[None] + moved, form)[0],
        cluster=labels[chosen],
        cluster_size=sizes[chosen],
        linear=terms.linear,
        constant=terms.constant,
        method=method,
        which=which,
        basis=terms.basis,
        status=Status.OK if complete else Status.RESIDUAL_TOO_LARGE,
        proof=Proof.SPECTRUM if complete else Proof.NONE,
    )


def failed(
    terms: OtherTerms, k: int, which: Which, method: str, status: Status
) -> EigenDecomposition:
    """Return the record of a form that could not be decomposed: NaN, and nothing claimed."""
    gap = terms.linear.new_full((k,), torch.nan)
    nothing = gap.new_zeros(k, dtype=torch.int64)
    return EigenDecomposition(
        eigenvalues=gap,
        eigenvectors=gap[:, None].expand(k, len(terms.linear)),
        residuals=gap,
        converged=nothing.bool(),
        norm=gap.new_tensor(torch.nan),
        explained=gap.new_tensor(torch.nan),
        complete=nothing.any(),
        rounding_bound=gap.new_tensor(torch.nan),
        cluster=nothing,
        cluster_size=nothing,
        linear=terms.linear,
        constant=terms.constant,
        method=method,
        which=which,
        basis=terms.basis,
        status=status,
        proof=Proof.NONE,
    )


class FactoredSolver(WholeSpectrumSolver):
    """One QR for all forms, then dense matrices of the width of the two branches together."""

    name: ClassVar[Solver] = "factored"

    def suits(self, sizes: Sizes, /) -> bool:
        return 2 * sizes.d_hidden < sizes.d_in

    def workspace(self, sizes: Sizes) -> int:
        """The branches scaled, stacked, copied, and the result of QR; an array; a block."""
        branches = 2 * sizes.d_hidden * sizes.d_in
        return 6 * 8 * branches + array_bytes(self.width(sizes)) + sizes.conversion_bytes

    def width(self, sizes: Sizes) -> int:
        return min(2 * sizes.d_hidden, sizes.d_in)

    def cost(self, sizes: Sizes, _precision: Precision, allowed: int, /) -> SolverCost:
        width = self.width(sizes)
        fixed = sizes.result_bytes + self.workspace(sizes)
        portion = sizes.portion(allowed - fixed)
        lift = 2.0 * sizes.k * width * sizes.d_in
        qr = 4.0 * sizes.d_in * width**2 * -(-sizes.num // portion)
        work = qr + sizes.num * (array_work(sizes, width) + lift)
        return SolverCost(work, MemoryEstimate(fixed, sizes.problem_bytes), 1, portion)

    def prepared(self, problem: Problem) -> OneForm:
        space = row_space(problem.forms)
        return lambda index, k, which: factored_pairs(problem, space, index, k, which)


@dataclass(frozen=True, eq=False)
class RowSpace:
    """Q_c = Y Q'_c Yᵀ: all forms of a problem, on the space that their factors span."""

    small: BalancedForms  # Q', of width min(2 · hidden, in); its units count in those of Q
    basis: Tensor  # Y, (in, width), orthonormal columns

    def outside(self, count: int) -> Tensor:
        """Return orthonormal rows on which every form vanishes, at most in − 2 · hidden of them."""
        generator = torch.Generator().manual_seed(0)
        rows = torch.randn(len(self.basis), count, generator=generator, dtype=self.basis.dtype)
        rows = rows.to(self.basis.device)
        for _ in range(2):
            rows = rows - self.basis @ (self.basis.T @ rows)
            rows = torch.linalg.qr(rows).Q
        return rows.T


def row_space(forms: BalancedForms) -> RowSpace:
    """Return the forms on the row space of their factors: 4 · in · (2 · hidden)² operations."""
    # Math: [L; R]ᵀ = Y T (one thin QR), so L = T_Lᵀ Yᵀ and R = T_Rᵀ Yᵀ.
    stacked = torch.cat([forms.left, forms.right]).double()
    basis, triangle = torch.linalg.qr(stacked.T)
    left, right = (part.T.contiguous() for part in triangle.tensor_split(2, dim=1))
    small = balance_all(left, right, forms.weights)
    sizes = forms.sizes_before_cancelling / small.units  # what cancelled in the weights
    sizes = small.sizes_before_cancelling.maximum(sizes)
    return RowSpace(replace(small, sizes_before_cancelling=sizes), basis)


def factored_pairs(
    problem: Problem, space: RowSpace, index: int, k: int, which: Which
) -> EigenDecomposition:
    """Return k eigenpairs of one form from its whole spectrum on the row space."""
    # The rest of the spectrum, in − width eigenvalues, is exactly zero. All pairs are checked on
    # the row space; the residuals of the k pairs come from the factors themselves. All in the
    # balanced unit of the form, which alone may be too small for float64.
    name, terms = FactoredSolver.name, problem.terms(index)
    form, small = problem.forms.form_at(index), space.small.form_at(index)
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
    vectors[inside] = inner.eigenvectors[positions[inside]] @ space.basis.T
    vectors[~inside] = space.outside(int((~inside).sum()))
    unit, kept = form.units[0], values[positions]
    residuals = (form.products(vectors[None])[0] - kept[:, None] * vectors).norm(dim=1)
    outside = torch.ones_like(values[width:], dtype=torch.bool)
    found = torch.cat([inner.converged, outside])[positions]
    converged = found & (residuals <= inner.rounding_bound)
    complete = inner.complete & converged.all()
    labels, sizes = clusters(values, float(inner.rounding_bound))
    nothing = torch.ones_like(inner.norm)
    return replace(
        inner,
        eigenvalues=kept * unit,
        eigenvectors=with_sign(vectors),
        residuals=residuals * unit,
        converged=converged,
        norm=inner.norm * unit,
        rounding_bound=in_units(inner.rounding_bound[None], form)[0],
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
