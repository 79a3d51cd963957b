"""The record of a CP decomposition: components, how well they fit, what is known about them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.cp.factors import Model
from bilens.algebra.cp.uniqueness import Uniqueness
from bilens.algebra.quadratic_map import QuadraticMap


@dataclass(frozen=True)
class Start:
    """How the fit from one start ended.

    Attributes:
        kind: "neurons" for the strongest hidden units, "random" for random rows.
        fit: 1 − ‖B − B̂‖²/‖B‖²; NaN if it failed.
        sweeps: sweeps over the factors, or iterations.
        converged: the last one lowered the squared error by less than the tolerance.
        degenerate: components grew and cancelled each other, so that the fit went on with a
            penalty on their sizes.
        failure: why there is no fit; empty if there is one.
    """

    kind: str
    fit: float
    sweeps: int
    converged: bool
    degenerate: bool
    failure: str = ""


@dataclass(frozen=True, eq=False)
class CPDecomposition:
    """B ≈ B̂ = Σ_a down_a ⊗ sym(left_a right_aᵀ), components by falling size; float64.

    f(x) ≈ Σ_a down_a (left_a·x)(right_a·x) + linear x + constant.

    Attributes:
        down: (out, rank); carries the sizes and signs.
        left: (rank, in), unit rows, largest entry positive.
        right: (rank, in), unit rows, largest entry positive; equal to `left` in the model
            "symmetric". sym(l rᵀ) = sym(r lᵀ): left is the one that first has a larger entry.
        linear: (out, in), of the map; None is zero.
        constant: (out,), of the map; None is zero.
        fit: 1 − ‖B − B̂‖²/‖B‖², with B and B̂ symmetric in the two inputs. (TensorLy and others
            report 1 − ‖B − B̂‖/‖B‖, which is 1 − `relative_error`.)
        relative_error: ‖B − B̂‖/‖B‖.
        resolution: the order of what rounding may have added to or taken from `relative_error`.
        cancellation: Σ_a ‖component_a‖²/‖B‖²; far above 1 where components cancel each other.
        ridge: the weight of the penalty on that sum in the fit that was kept.
        uniqueness: whether these components are the only ones of their sum.
        starts: how each start ended, in order.
        best: which of the starts was kept.
        losses: squared relative error with the penalty, at the start and after each sweep.
        model: "pairs" or "symmetric".
        method: "als" or "gradient".
        basis: the name of the basis that inputs are written in.
    """

    down: Tensor
    left: Tensor
    right: Tensor
    linear: Tensor | None
    constant: Tensor | None
    fit: float
    relative_error: float
    resolution: float
    cancellation: float
    ridge: float
    uniqueness: Uniqueness
    starts: tuple[Start, ...]
    best: int
    losses: tuple[float, ...]
    model: Model
    method: str
    basis: str = "input"

    @property
    def rank(self) -> int:
        """How many components there are."""
        return len(self.left)

    @property
    def converged(self) -> bool:
        """The start that was kept converged."""
        return self.starts[self.best].converged

    @property
    def sweeps(self) -> int:
        """How many sweeps the start that was kept took."""
        return self.starts[self.best].sweeps

    @property
    def degenerate(self) -> bool:
        """The components that were kept grew and cancelled each other."""
        return self.starts[self.best].degenerate

    @property
    def unique(self) -> bool | None:
        """Whether the components are the only ones of their sum; None if not proven."""
        return self.uniqueness.unique

    @property
    def sizes(self) -> Tensor:
        """‖component_a‖ = ‖down_a‖ ‖sym(left_a right_aᵀ)‖, (rank,), falling."""
        overlap = (self.left * self.right).sum(dim=1)
        sizes: Tensor = self.down.norm(dim=0) * ((1 + overlap.square()) / 2).sqrt()
        return sizes

    def quadratic_map(self) -> QuadraticMap:
        """Return B̂ as a map, with the linear and constant terms of the original."""
        tensor = BilinearTensor(self.down, self.left, self.right)
        return QuadraticMap(tensor, self.linear, self.constant, self.basis)

    def eigenpairs(self) -> tuple[Tensor, Tensor]:
        """Return the two eigenpairs of each sym(left_a right_aᵀ), (rank, 2) and (rank, 2, in).

        Math: for unit l and r, sym(l rᵀ) = ¼[(l+r)(l+r)ᵀ − (l−r)(l−r)ᵀ], so the eigenvalues are
            ½(l·r ± 1) with eigenvectors (l ± r)/‖l ± r‖. An eigenvalue 0, where l = ±r, has the
            zero vector. Values are per unit of `down`.
        Cost: O(rank · in).
        """
        plus, minus = self.left + self.right, self.left - self.right
        both = torch.stack([plus, minus], dim=1)
        lengths = both.norm(dim=2)
        signs = both.new_tensor([0.25, -0.25])  # ½(l·r ± 1) = ±¼‖l ± r‖², without cancellation
        vectors = both / torch.where(lengths > 0, lengths, 1.0)[..., None]
        return signs * lengths.square(), vectors
