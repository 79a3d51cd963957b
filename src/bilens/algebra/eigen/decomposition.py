"""The record of an eigendecomposition: pairs, their residuals, and what is left out."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import Literal

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.interaction import InteractionMatrix
from bilens.algebra.quadratic_form import QuadraticForm, check_inputs
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.checks import check_count
from bilens.errors import NumericalError, ShapeError, UsageError

Which = Literal["magnitude", "largest", "smallest", "both"]


class Status(Enum):
    """How the decomposition of one form ended."""

    OK = "every pair met the tolerance"
    NOT_FINITE = "the form holds NaN or infinity and was not decomposed"
    NOT_CONVERGED = "the solver did not converge"
    RESIDUAL_TOO_LARGE = (
        "a residual, the orthogonality of the vectors, or the mass of the spectrum is outside the "
        "tolerance"
    )


@dataclass(frozen=True, eq=False)
class Contributions:
    """The exact parts of q(x): Σ_i pairs_i + linear + constant (+ what was left out) = q(x).

    Attributes:
        pairs: (..., batch, k), λ_i (v_i·x)², in units of the output.
        linear: (..., batch), b·x.
        constant: (...), c.
    """

    pairs: Tensor
    linear: Tensor
    constant: Tensor

    def total(self) -> Tensor:
        """Return the sum of all parts, (..., batch)."""
        return self.pairs.sum(dim=-1) + self.linear + self.constant[..., None]


@dataclass(frozen=True, eq=False)
class Subspace:
    """Eigenvalues too close to tell apart: only the space that their vectors span means anything.

    Attributes:
        indices: positions in the decomposition.
        eigenvalue: their mean.
        basis: (size, in), orthonormal rows; one basis of many.
    """

    indices: tuple[int, ...]
    eigenvalue: float
    basis: Tensor

    def projector(self) -> Tensor:
        """Return the (in, in) orthogonal projector, which does not depend on the basis."""
        return self.basis.T @ self.basis


@dataclass(frozen=True, eq=False)
class EigenDecomposition:
    """Eigenpairs by falling |eigenvalue|; the largest component of each vector is positive.

    One form, or a batch of forms with leading axes (`eigs[c]` is the one of form c). Everything
    is float64. Sum of the pairs: q(x) = Σ_i λ_i (v_i·x)² + linear·x + constant.

    Attributes:
        eigenvalues: (..., k), signed, in units of the output per squared unit of the input.
        eigenvectors: (..., k, in), orthonormal rows.
        residuals: (..., k), ‖Qv − λv‖ from the factors: an eigenvalue of Q lies that close to λ.
        converged: (..., k), residual and orthogonality to the others are within the tolerance.
        frobenius_squared: (...), ‖Q‖_F², exact from the factors.
        complete: (...), proven: no eigenvalue larger in size than the returned ones was missed.
        linear: (..., in), the linear term of the form.
        constant: (...), the constant of the form.
        method: the solver that ran.
        which: the end of the spectrum that was asked for.
        status: one for a single form, a tuple for a batch.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    residuals: Tensor
    converged: Tensor
    frobenius_squared: Tensor
    complete: Tensor
    linear: Tensor
    constant: Tensor
    method: str
    which: Which
    status: Status | tuple[Status, ...]

    @property
    def explained(self) -> Tensor:
        """Share Σλ_i² / ‖Q‖_F² of the returned pairs, (...); 1 for a form that is zero."""
        mass = self.eigenvalues.square().sum(dim=-1)
        total = self.frobenius_squared
        share = mass / total.where(total > 0, torch.ones_like(total))
        return share.where(total > 0, torch.ones_like(share))

    def __len__(self) -> int:
        if self.eigenvalues.ndim == 1:
            raise ShapeError("this is the decomposition of one form; only a batch has a length.")
        return len(self.eigenvalues)

    def __getitem__(self, index: int) -> EigenDecomposition:
        """Return the decomposition of one form of a batch."""
        if self.eigenvalues.ndim == 1 or not isinstance(self.status, tuple):
            raise ShapeError("this is the decomposition of one form; only a batch can be indexed.")
        if not -len(self) <= index < len(self):
            raise IndexError(f"form {index} of a batch of {len(self)}")
        return EigenDecomposition(
            self.eigenvalues[index],
            self.eigenvectors[index],
            self.residuals[index],
            self.converged[index],
            self.frobenius_squared[index],
            self.complete[index],
            self.linear[index],
            self.constant[index],
            self.method,
            self.which,
            self.status[index],
        )

    def contributions(self, x: Tensor) -> Contributions:
        """Return what each pair, the linear term and the constant add to q(x).

        Math: λ_i (v_i·x)², b·x and c; they sum to q(x) when all pairs are kept.
        Cost: O(batch · k · in) for each form.

        Args:
            x: (batch, in), float64.

        Raises:
            ShapeError: If the inputs have another width or dtype.
        """
        x = check_inputs(x, self.eigenvectors.shape[-1], self.eigenvectors.dtype)
        if x.ndim != 2:
            raise ShapeError(f"the input has shape {tuple(x.shape)}; expected (batch, in).")
        overlap = x @ self.eigenvectors.mT
        linear = (self.linear @ x.T).expand(overlap.shape[:-1])
        return Contributions(
            self.eigenvalues[..., None, :] * overlap.square(), linear, self.constant
        )

    def truncate(self, k: int) -> QuadraticForm:
        """Return the form that keeps the k leading pairs, and the linear and constant terms.

        With `which="magnitude"` it is the best approximation of rank k in Frobenius and spectral
        norm (Eckart–Young) in the metric of this basis.

        Raises:
            UsageError: If k is negative or more than there are pairs.
            ShapeError: If this is a batch; use `eigs[c].truncate(k)` or `truncate_map`.
        """
        if self.eigenvalues.ndim != 1:
            raise ShapeError(
                "truncate works on one form: use eigs[c].truncate(k), or eigs.truncate_map(k)."
            )
        kept = self._check_k(k)
        vectors = self.eigenvectors[:kept]
        if kept == 0:  # a form needs one product; a zero weight keeps none of it
            vectors = vectors.new_zeros(1, self.eigenvectors.shape[-1])
        weight = self.eigenvalues[:kept] if kept else self.eigenvalues.new_zeros(1)
        return QuadraticForm(
            InteractionMatrix(vectors, vectors, weight), self.linear, self.constant
        )

    def truncate_map(self, k: int) -> QuadraticMap:
        """Return the map whose output c keeps the k leading pairs of form c.

        Cost: O(forms² · k + forms · k · in) memory.

        Raises:
            UsageError: If k is negative or more than there are pairs.
            ShapeError: If this is not a batch of forms with one leading axis.
        """
        if self.eigenvalues.ndim != 2:
            raise ShapeError("truncate_map works on a batch of forms; use truncate for one form.")
        kept = self._check_k(k)
        vectors = self.eigenvectors[:, : max(kept, 1)]
        weight = self.eigenvalues[:, : max(kept, 1)] * bool(kept)
        stacked = vectors.flatten(0, 1)
        forms, width = weight.shape
        down = weight.new_zeros(forms, forms, width)
        down[range(forms), range(forms)] = weight  # output c reads the pairs of form c alone
        tensor = BilinearTensor(down.flatten(1), stacked, stacked)
        return QuadraticMap(tensor, self.linear, self.constant)

    def _check_k(self, k: int) -> int:
        check_count("k", k, minimum=0)
        if k > self.eigenvalues.shape[-1]:
            raise UsageError(
                f"k={k}, but only {self.eigenvalues.shape[-1]} pairs were computed: "
                "decompose with a larger k."
            )
        statuses = self.status if isinstance(self.status, tuple) else (self.status,)
        bad = [status.value for status in statuses if status is not Status.OK]
        if bad:
            raise NumericalError(f"nothing can be built on these eigenpairs: {bad[0]}.")
        return k

    def subspaces(self, tolerance: float = 1e-8) -> tuple[Subspace, ...]:
        """Group eigenvalues whose gap is below tolerance · max|λ|; single ones stand alone.

        Within a group the individual vectors are an accident of rounding (Davis–Kahan: their
        error is of the order of eps · ‖Q‖ / gap); report the projector.

        Cost: O(k log k + k · in).

        Raises:
            ShapeError: If this is a batch; use `eigs[c].subspaces()`.
        """
        if self.eigenvalues.ndim != 1:
            raise ShapeError("subspaces works on one form: use eigs[c].subspaces().")
        order = torch.argsort(self.eigenvalues, descending=True).tolist()
        limit = tolerance * float(self.eigenvalues.abs().max())
        groups: list[list[int]] = []
        for position in order:
            value = float(self.eigenvalues[position])
            if groups and float(self.eigenvalues[groups[-1][-1]]) - value <= limit:
                groups[-1].append(position)
            else:
                groups.append([position])
        groups.sort(key=min)
        return tuple(
            Subspace(
                tuple(sorted(group)),
                float(self.eigenvalues[group].mean()),
                self.eigenvectors[sorted(group)],
            )
            for group in groups
        )


def ranked(values: Tensor, vectors: Tensor, k: int, which: Which) -> tuple[Tensor, Tensor]:
    """Choose k pairs of a whole spectrum; fix order and sign. The one place where that is done.

    Args:
        values: (n,) in any order.
        vectors: (n, in), rows.
        k: how many to keep.
        which: "magnitude" (largest |λ|), "largest", "smallest" (by sign), or "both": half from
            each end, the extra one from the upper end.

    Returns:
        (k,) and (k, in): by falling |λ|; the largest component of each vector positive, the first
        of them where two are equal in size.
    """
    by_value = torch.argsort(values, descending=True)
    if which == "magnitude":
        chosen = torch.argsort(values.abs(), descending=True, stable=True)[:k]
    elif which == "largest":
        chosen = by_value[:k]
    elif which == "smallest":
        chosen = by_value[len(values) - k :]
    else:
        chosen = torch.cat([by_value[: k - k // 2], by_value[len(values) - k // 2 :]])
    values, vectors = values[chosen], vectors[chosen]
    order = torch.argsort(values.abs(), descending=True, stable=True)
    values, vectors = values[order], vectors[order]
    largest = vectors.abs().argmax(dim=1, keepdim=True)
    return values, vectors * torch.where(vectors.gather(1, largest) < 0, -1.0, 1.0)
