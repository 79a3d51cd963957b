"""What every solver's answer must pass before it leaves: residuals and orthogonality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import BalancedForms
from bilens.algebra.eigen.decomposition import EigenDecomposition, Proof, Status
from bilens.algebra.eigen.ranking import Which, ranked

EPS = torch.finfo(torch.float64).eps
SOLVER_TOLERANCE = 1000 * EPS  # of ‖Q‖_F, or of a unit vector: what a backward-stable solver keeps
FACTOR_TOLERANCE = 10 * EPS  # of Σ|s_h|‖l_h‖‖r_h‖: rounding of the factors' own products
CLUSTER_TOLERANCE = 1e-8  # of the largest |λ|: closer eigenvalues are reported as one subspace


class Terms(Protocol):
    """What a record repeats of its form; a `QuadraticForm` has it."""

    @property
    def linear(self) -> Tensor:
        """(in,)."""

    @property
    def constant(self) -> Tensor:
        """A scalar tensor."""

    @property
    def basis(self) -> str:
        """The name of the basis of the input."""


@dataclass(frozen=True, eq=False)
class Spectrum:
    """The whole spectrum that a solver found for a form written as an array.

    Attributes:
        values: (n,), in any order.
        vectors: (n, in), rows.
        residuals: (n,), ‖Qv − λv‖ with Q as the array.
        mass: ‖Q‖_F², from the array and not from the values.
        forming_error: how far the array is from the factors, in Frobenius norm.
    """

    values: Tensor
    vectors: Tensor
    residuals: Tensor
    mass: Tensor
    forming_error: Tensor


def checked_spectrum(
    terms: Terms,
    form: BalancedForms,
    spectrum: Spectrum,
    k: int,
    which: Which,
    method: str,
) -> EigenDecomposition:
    """Return k pairs of a *whole* spectrum, after a check of all of its pairs.

    n orthonormal vectors with residuals R leave no room for a missing or wrong eigenvalue: the
    eigenvalues of Q and the values pair off within ‖R‖_F (Weyl), so `complete` is claimed only if
    ‖R‖_F, the departure from orthonormality and the error of forming the array are all within the
    noise, whatever k is. The residuals of the k pairs are measured from the factors.

    Args:
        terms: the other terms of the form, float64.
        form: its matrix in a scale of its own, a single one; everything is checked there.
        spectrum: what the solver found, in that scale.
        k: number of pairs to return.
        which: the end of the spectrum.
        method: name of the solver.
    """
    noise = SOLVER_TOLERANCE * spectrum.mass.sqrt()
    noise = noise + FACTOR_TOLERANCE * form.sizes_before_cancelling[0]
    overlap = spectrum.vectors @ spectrum.vectors.T
    overlap.diagonal().sub_(1)
    skew = overlap.norm(dim=1)
    whole = len(spectrum.values) == len(terms.linear) and bool(
        (spectrum.residuals.norm() <= noise)
        & (skew.norm() <= SOLVER_TOLERANCE)
        & (spectrum.forming_error <= noise)
    )
    labels, sizes = clusters(spectrum.values, float(noise))
    values, vectors, chosen = ranked(spectrum.values, spectrum.vectors, k, which)
    residuals = (form.products(vectors[None])[0] - values[:, None] * vectors).norm(dim=1)
    converged = (residuals <= noise) & (skew[chosen] <= SOLVER_TOLERANCE)
    complete = whole and bool(converged.all())
    mass, unit = spectrum.mass, form.units[0]
    return EigenDecomposition(
        eigenvalues=values * unit,
        eigenvectors=vectors,
        residuals=residuals * unit,
        converged=converged,
        norm=mass.sqrt() * unit,
        explained=values.square().sum() / mass if mass > 0 else torch.ones_like(mass),
        complete=torch.as_tensor(complete),
        noise=noise * unit,
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


def clusters(values: Tensor, noise: float) -> tuple[Tensor, Tensor]:
    """Return the cluster of each eigenvalue of a whole spectrum, and how many share it.

    Neighbours closer than CLUSTER_TOLERANCE of the largest |λ|, or than the noise, are one
    cluster. It is found before any selection, so that a cut through it is seen.

    Returns:
        (n,) labels and (n,) sizes, int64.
    """
    limit = max(CLUSTER_TOLERANCE * float(values.abs().max()), noise)
    ordered = values.sort(descending=True)
    starts = torch.ones_like(values, dtype=torch.int64)
    starts[1:] = (ordered.values[:-1] - ordered.values[1:] > limit).long()
    labels = torch.empty_like(starts)
    labels[ordered.indices] = starts.cumsum(dim=0) - 1
    return labels, torch.bincount(labels)[labels]


def failed(form: Terms, k: int, which: Which, method: str, status: Status) -> EigenDecomposition:
    """Return the record of a form that could not be decomposed: NaN, and nothing claimed."""
    gap = form.linear.new_full((k,), torch.nan)
    nothing = torch.zeros(k, dtype=torch.int64)
    return EigenDecomposition(
        eigenvalues=gap,
        eigenvectors=gap[:, None].expand(k, len(form.linear)),
        residuals=gap,
        converged=torch.zeros(k, dtype=torch.bool),
        norm=gap.new_tensor(torch.nan),
        explained=gap.new_tensor(torch.nan),
        complete=torch.as_tensor(False),
        noise=gap.new_tensor(torch.nan),
        cluster=nothing,
        cluster_size=nothing,
        linear=form.linear,
        constant=form.constant,
        method=method,
        which=which,
        basis=form.basis,
        status=status,
        proof=Proof.NONE,
    )
