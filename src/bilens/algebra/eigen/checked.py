"""What every solver's answer must pass before it leaves: residuals and orthogonality."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import Balanced
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
    """The whole spectrum that a solver found.

    Attributes:
        values: (n,), in any order.
        vectors: (n, in), rows.
        mass: ‖Q‖_F², from the matrix and not from the values.
    """

    values: Tensor
    vectors: Tensor
    mass: Tensor


def checked_spectrum(
    form: Terms,
    balanced: Balanced,
    spectrum: Spectrum,
    k: int,
    which: Which,
    method: str,
) -> EigenDecomposition:
    """Return k pairs of a *whole* spectrum, after a check of all of its pairs.

    n orthonormal vectors with small residuals leave no room for a missing or wrong eigenvalue:
    the eigenvalues of Q and the values pair off within the norm of the residuals (Weyl), so
    `complete` is claimed only if every one of the n pairs passes, whatever k is.

    Args:
        form: the other terms of the form, float64.
        balanced: its matrix in unit scale; everything is checked there.
        spectrum: what the solver found, in unit scale.
        k: number of pairs to return.
        which: the end of the spectrum.
        method: name of the solver.
    """
    values, vectors, mass = spectrum.values, spectrum.vectors, spectrum.mass
    noise = SOLVER_TOLERANCE * mass.sqrt() + FACTOR_TOLERANCE * balanced.size_before_cancelling
    residuals = (balanced.matrix.matvec(vectors) - values[:, None] * vectors).norm(dim=1)
    overlap = vectors @ vectors.T - torch.eye(len(vectors), dtype=vectors.dtype)
    passed = (residuals <= noise) & (overlap.abs().amax(dim=1) <= SOLVER_TOLERANCE)
    complete = bool(passed.all()) and len(values) == len(form.linear)
    labels, sizes = clusters(values, float(noise))
    values, vectors, chosen = ranked(values, vectors, k, which)
    return EigenDecomposition(
        eigenvalues=values * balanced.unit,
        eigenvectors=vectors,
        residuals=residuals[chosen] * balanced.unit,
        converged=passed[chosen],
        frobenius_squared=mass * balanced.unit.square(),
        explained=values.square().sum() / mass if mass > 0 else torch.ones_like(mass),
        complete=torch.as_tensor(complete),
        noise=noise * balanced.unit,
        cluster=labels[chosen],
        cluster_size=sizes[chosen],
        linear=form.linear,
        constant=form.constant,
        method=method,
        which=which,
        basis=form.basis,
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
        frobenius_squared=gap.new_tensor(torch.nan),
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
