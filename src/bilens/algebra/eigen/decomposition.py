"""The record of an eigendecomposition: pairs, their residuals, and what is left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import fields, replace
from enum import Enum
from typing import Any

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.concentration import TRUNCATED
from bilens.algebra.eigen.ranking import Which, chosen_positions
from bilens.algebra.quadratic_form import InteractionMatrix, QuadraticForm, check_inputs
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import as_integer, check_count
from bilens.base.errors import NumericalError, ShapeError, UsageError
from bilens.base.frame import frame
from bilens.base.notebook import frozen_result


class Status(Enum):
    """How the work on one form, or along one output direction, ended."""

    OK = "every check passed"
    NOT_FINITE = "it holds NaN or infinity, or leaves float64, so there is no result"
    NOT_CONVERGED = "the solver did not converge"
    RESIDUAL_TOO_LARGE = "a residual, or the orthogonality of the vectors, is outside the tolerance"
    MISSED = "zero is an eigenvalue more often, by the rank of the form, than was found"


class Proof(Enum):
    """How it is known that no eigenvalue of the selection was missed: what `complete` rests on."""

    NONE = "not proven: a larger eigenvalue may have been missed"
    SPECTRUM = "all eigenpairs were found and checked"
    NORM = "‖Q‖² − Σλ² leaves no room for an eigenvalue as large as the smallest one returned"
    RANK = "as many eigenvalues that are not zero were found as the neurons can give"
    COMPARISON = "the values agree with those of a dense solver"


@frozen_result()
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
    to_frame = frame("pairs", "form", "row", "pair")

    def total(self) -> Tensor:
        """Return the sum of all parts, (..., batch)."""
        return self.pairs.sum(dim=-1) + self.linear + self.constant[..., None]


@frozen_result()
class Subspace:
    """Eigenvalues too close to tell apart: only the space that their vectors span means anything.

    Attributes:
        indices: positions in the decomposition.
        size: how many eigenvalues of the whole spectrum belong together; more than there are
            indices where k cut through them.
        eigenvalue: the mean of those at hand.
        basis: (len(indices), in), orthonormal rows; one basis of many.
        complete: whether the decomposition is proven complete. Where it is not, a further
            eigenvalue of this size may have been missed: decompose with verify=True.
    """

    indices: tuple[int, ...]
    size: int
    eigenvalue: float
    basis: Tensor
    complete: bool

    def projector(self) -> Tensor:
        """Return the (in, in) orthogonal projector, which does not depend on the basis.

        Raises: UsageError if k cut through the subspace, so that a part of it is missing.
        """
        if self.size > len(self.indices):
            raise UsageError(
                f"{self.size} eigenvalues near {self.eigenvalue:.6g} cannot be told apart, and "
                f"only {len(self.indices)} of them were asked for: decompose with a larger k."
            )
        return self.basis.T @ self.basis


@frozen_result(
    "eigenvalues", "explained", "converged", "complete", "method", "which", "basis", "status"
)
class EigenDecomposition:
    """Eigenpairs by falling |eigenvalue|; the largest component of each vector is positive.

    One form, or a batch of forms with leading axes (`eigs[c]` is the one of form c). Everything
    is float64. Sum of the pairs: q(x) = Σ_i λ_i (v_i·x)² + linear·x + constant.

    Attributes:
        eigenvalues: (..., k), signed, in units of the output per squared unit of the input.
        eigenvectors: (..., k, in), orthonormal rows.
        residuals: (..., k), ‖Qv − λv‖ from the factors: up to their rounding, an eigenvalue of Q
            lies that close to λ.
        converged: (..., k), residual and orthogonality to the others are within the tolerance.
        norm: (...), ‖Q‖_F; to about 1e-6 of it where the iteration ran in float32.
        explained: (...), share Σλ_i² / ‖Q‖_F² of the returned pairs; 1 for a form that is zero.
        complete: (...), proven up to `rounding_bound`, and to ties of 1e-8 in size: no eigenvalue
            that belongs to the selection `which` was missed. False means that nothing is proven,
            not that one was missed.
        rounding_bound: (...), of the factors and the solver: an eigenvalue that is smaller in size
            cannot be told from zero, nor two that are closer from each other.
        cluster: (..., k), equal labels for eigenvalues that are too close to tell apart.
        cluster_size: (..., k), how many of the whole spectrum share the label; 1 stands alone.
        linear: (..., in), the linear term of the form.
        constant: (...), the constant of the form.
        method: the solver that ran.
        which: the end of the spectrum that was asked for.
        basis: the name of the basis in which the vectors are orthonormal: "input", or "embedding",
            "whitened" and so on with a fingerprint of the weights or the Σ that define it.
        status: one for a single form, a tuple for a batch.
        proof: what `complete` rests on; one for a single form, a tuple for a batch.
    """

    eigenvalues: Tensor
    eigenvectors: Tensor
    residuals: Tensor
    converged: Tensor
    norm: Tensor
    explained: Tensor
    complete: Tensor
    rounding_bound: Tensor
    cluster: Tensor
    cluster_size: Tensor
    linear: Tensor
    constant: Tensor
    method: str
    which: Which
    basis: str
    status: Status | tuple[Status, ...]
    proof: Proof | tuple[Proof, ...]
    to_frame = frame("eigenvalues", "form", "pair", without=("linear",))  # which is of inputs

    def __post_init__(self) -> None:
        setattr(self.eigenvalues, TRUNCATED, not self.whole)

    @property
    def device(self) -> torch.device:
        """The device of the tensors."""
        return self.eigenvalues.device

    @property
    def whole(self) -> bool:
        """Whether these are whole spectra: eigenvalues that were left out are known to be zero."""
        k, width = self.eigenvectors.shape[-2:]
        if k == width or all(proof is Proof.RANK for proof in tuple_of(self.proof)):
            return True
        zeros = self.eigenvalues[..., -1].abs() <= self.rounding_bound  # the smallest of them
        return self.which == "magnitude" and bool((self.complete & zeros).all())

    def __len__(self) -> int:
        if self.eigenvalues.ndim == 1:
            raise ShapeError("this is the decomposition of one form; only a batch has a length.")
        return len(self.eigenvalues)

    def __getitem__(self, index: int | slice) -> EigenDecomposition:
        """Return the decomposition of one form of a batch; a batch of several for a slice."""
        if not isinstance(self.status, tuple) or not isinstance(self.proof, tuple):
            raise ShapeError("this is the decomposition of one form; only a batch can be indexed.")
        if isinstance(index, slice):
            return take(self, torch.tensor(range(len(self))[index], dtype=torch.int64))
        number = as_integer(index)
        if number is None:
            raise UsageError(f"a form of a batch is eigs[c], several are eigs[a:b]; got {index!r}.")
        if not -len(self) <= number < len(self):
            raise IndexError(f"form {number} of a batch of {len(self)}")
        one: dict[str, Any] = {name: getattr(self, name)[number] for name in tensor_fields(self)}
        return replace(self, **one, status=self.status[number], proof=self.proof[number])

    @property
    def frobenius_squared(self) -> Tensor:
        """‖Q‖_F², (...); infinite or zero where the square leaves float64."""
        return self.norm.square()

    @property
    def distinct_from_zero(self) -> Tensor:
        """Eigenvalues with those below the rounding bound set to zero, (..., k)."""
        keep = self.eigenvalues.abs() > self.rounding_bound[..., None]
        return torch.where(keep, self.eigenvalues, torch.zeros_like(self.eigenvalues))

    def contributions(self, x: Tensor) -> Contributions:
        """Return the terms of q(x) by eigenpair, linear part and constant, for x (batch, in).

        Math: λ_i (v_i·x)², b·x and c; they sum to q(x) when all pairs are kept.
        Cost: O(batch · k · in) for each form.
        Raises: ShapeError if the inputs have another width or dtype; NumericalError if a form
            did not pass its checks: index the others, `eigs[c]`.
        """
        self.check_usable()
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

        With `which="magnitude"` it is a best approximation of rank k in Frobenius and spectral
        norm (Eckart–Young) in the metric of this basis; the only one if |λ_k| > |λ_{k+1}|.

        Raises: UsageError if k is negative or more than there are pairs; ShapeError for a batch:
            use `eigs[c].truncate(k)` or `truncate_map`.
        """
        if self.eigenvalues.ndim != 1:
            raise ShapeError(
                "truncate works on one form: use eigs[c].truncate(k), or eigs.truncate_map(k)."
            )
        kept = checked_k(self, k)
        self.check_usable()
        vectors = self.eigenvectors[:kept]
        if kept == 0:  # a form needs one product; a zero weight keeps none of it
            vectors = vectors.new_zeros(1, self.eigenvectors.shape[-1])
        weight = self.eigenvalues[:kept] if kept else self.eigenvalues.new_zeros(1)
        return QuadraticForm(
            InteractionMatrix(vectors, vectors, weight), self.linear, self.constant, self.basis
        )

    def truncate_map(self, k: int) -> QuadraticMap:
        """Return the map whose output c keeps the k leading pairs of form c.

        Cost: O(forms² · k + forms · k · in) memory.
        Raises: as `truncate`; ShapeError where this is not a batch of one leading axis.
        """
        if self.eigenvalues.ndim != 2:
            raise ShapeError("truncate_map works on a batch of forms; use truncate for one form.")
        kept = checked_k(self, k)
        self.check_usable()
        vectors = self.eigenvectors[:, : max(kept, 1)]
        weight = self.eigenvalues[:, : max(kept, 1)] * bool(kept)
        stacked = vectors.flatten(0, 1)
        forms, width = weight.shape
        down = weight.new_zeros(forms, forms, width)
        down[range(forms), range(forms)] = weight  # output c reads the pairs of form c alone
        tensor = BilinearTensor(down.flatten(1), stacked, stacked)
        return QuadraticMap(tensor, self.linear, self.constant, self.basis)

    def check_usable(self) -> None:
        """Raise NumericalError, with the reason, if the decomposition did not pass its checks."""
        bad = [status.value for status in tuple_of(self.status) if status is not Status.OK]
        if bad:
            raise NumericalError(f"nothing can be built on these eigenpairs: {bad[0]}.")

    def subspaces(self) -> tuple[Subspace, ...]:
        """Group the pairs whose eigenvalues cannot be told apart, in O(k · in); others stand alone.

        Within a group the individual vectors are an accident of rounding (Davis–Kahan: their
        error is of the order of eps · ‖Q‖ / gap); report the projector.

        Raises: ShapeError for a batch: use `eigs[c].subspaces()`; NumericalError if the form did
            not pass its checks.
        """
        if self.eigenvalues.ndim != 1:
            raise ShapeError("subspaces works on one form: use eigs[c].subspaces().")
        self.check_usable()
        groups: dict[int, list[int]] = {}
        for position, label in enumerate(self.cluster.tolist()):
            groups.setdefault(label, []).append(position)
        return tuple(
            Subspace(
                tuple(group),
                int(self.cluster_size[group[0]]),
                float(self.eigenvalues[group].mean()),
                self.eigenvectors[group],
                bool(self.complete),
            )
            for group in groups.values()
        )


def stack(singles: Sequence[EigenDecomposition]) -> EigenDecomposition:
    tensors: dict[str, Any] = {
        name: torch.stack([getattr(single, name) for single in singles])
        for name in tensor_fields(singles[0])
    }
    return replace(
        singles[0],
        **tensors,
        status=tuple(one for single in singles for one in tuple_of(single.status)),
        proof=tuple(one for single in singles for one in tuple_of(single.proof)),
    )


def take(batch: EigenDecomposition, chosen: Tensor) -> EigenDecomposition:
    """Return some forms of a batch, by (num,) positions."""
    status, proof = tuple_of(batch.status), tuple_of(batch.proof)
    tensors: dict[str, Any] = {name: getattr(batch, name)[chosen] for name in tensor_fields(batch)}
    positions = chosen.tolist()
    return replace(
        batch,
        **tensors,
        status=tuple(status[index] for index in positions),
        proof=tuple(proof[index] for index in positions),
    )


def select(batch: EigenDecomposition, k: int, which: Which) -> EigenDecomposition:
    """Return k pairs, or all, of each form of a batch of whole spectra, from another end."""
    kept = min(k, batch.eigenvalues.shape[1])
    chosen = torch.stack([chosen_positions(values, kept, which) for values in batch.eigenvalues])
    pairs = {
        name: getattr(batch, name).gather(1, chosen)
        for name in ("eigenvalues", "residuals", "converged", "cluster", "cluster_size")
    }
    rows = chosen[:, :, None].expand(-1, -1, batch.eigenvectors.shape[2])
    everything = batch.eigenvalues.square().sum(dim=1)
    share = pairs["eigenvalues"].square().sum(dim=1) / torch.where(everything > 0, everything, 1.0)
    return replace(
        batch,
        **pairs,
        eigenvectors=batch.eigenvectors.gather(1, rows),
        explained=batch.explained * torch.where(everything > 0, share, 1.0),
        which=which,
    )


def assemble(parts: Sequence[tuple[Tensor, EigenDecomposition]]) -> EigenDecomposition:
    """Return one batch of several, in the order of the positions, together 0, 1, … exactly once."""
    batches = [batch for _, batch in parts]
    order = torch.cat([positions for positions, _ in parts])
    joined: dict[str, Any] = {}
    for name in tensor_fields(batches[0]):
        whole = getattr(batches[0], name)
        joined[name] = whole.new_empty(len(order), *whole.shape[1:])
        for positions, batch in parts:
            joined[name][positions] = getattr(batch, name)
    for name in ("status", "proof"):
        values = [value for batch in batches for value in tuple_of(getattr(batch, name))]
        joined[name] = tuple(values[index] for index in torch.argsort(order).tolist())
    return replace(batches[0], **joined)


def tuple_of(value: Any) -> tuple[Any, ...]:
    """Return the statuses or proofs of a batch, or of one form."""
    return value if isinstance(value, tuple) else (value,)


def checked_k(eig: EigenDecomposition, k: int) -> int:
    """Return k if there are as many pairs."""
    k = check_count("k", k, minimum=0)
    if k > eig.eigenvalues.shape[-1]:
        raise UsageError(
            f"k={k}, but only {eig.eigenvalues.shape[-1]} pairs were computed: "
            "decompose with a larger k."
        )
    return k


def tensor_fields(record: EigenDecomposition) -> list[str]:
    names = [field.name for field in fields(record)]
    return [name for name in names if isinstance(getattr(record, name), Tensor)]
