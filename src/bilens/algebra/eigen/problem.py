"""What the solvers are given: forms that share their factors, whatever asked for them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.balance import BalancedForms, balance_all
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap

EVERY = slice(None)


@dataclass(frozen=True, eq=False)
class OtherTerms:
    """What one form adds to its quadratic part."""

    linear: Tensor
    constant: Tensor
    basis: str


@dataclass(frozen=True, eq=False)
class Problem:
    """Q_c = Σ_h weights_ch sym(left_h right_hᵀ) for each form c, with its other terms.

    Attributes:
        left: (hidden, in), float32 or float64.
        right: (hidden, in).
        weights: (num, hidden) float64; zeros for a form that is not usable.
        linear: (num, in) float64.
        constant: (num,) float64.
        usable: (num,) bool; False where an entry of the direction, or its product with the
            factors, is not finite.
        basis: the name of the basis of the input.
        before: (num, hidden), Σ_c |direction_c| |down_ch|, what cancelled in the weights; None
            where nothing was summed.
        summed: how many products were summed to each weight.
    """

    left: Tensor
    right: Tensor
    weights: Tensor
    linear: Tensor
    constant: Tensor
    usable: Tensor
    basis: str
    before: Tensor | None = None
    summed: int = 0

    @property
    def num(self) -> int:
        """How many forms there are."""
        return len(self.weights)

    @property
    def d_in(self) -> int:
        """Width of the input."""
        return self.left.shape[1]

    @property
    def d_hidden(self) -> int:
        """Number of products in each form."""
        return self.left.shape[0]

    def terms(self, index: int) -> OtherTerms:
        """Return the linear and constant term of one form."""
        return OtherTerms(self.linear[index], self.constant[index], self.basis)

    def balanced(self) -> BalancedForms:
        """Return the forms in a scale of their own."""
        return balance_all(self.left, self.right, self.weights, self.before, self.summed)


def problem_of_form(form: QuadraticForm) -> Problem:
    """Return a single form as a batch of one, cut from the graph of gradients."""
    form = form.detach()
    matrix = form.matrix
    return Problem(
        widened(matrix.left),
        widened(matrix.right),
        matrix.weight.double()[None],
        form.linear.double()[None],
        form.constant.double()[None],
        torch.ones(1, dtype=torch.bool),
        form.basis,
    )


def problem_of_map(
    f: QuadraticMap, directions: Tensor | None = None, chosen: slice = EVERY
) -> Problem:
    """Return the forms of a map along (num, out) directions, some of which may be unusable.

    Args:
        f: the map.
        directions: None reads every output as it is, without an (out, out) array.
        chosen: which of the directions.
    """
    f = f.detach()
    rows = None if directions is None else directions[chosen].detach().double()

    def read(part: Tensor) -> Tensor:
        return part[chosen].double() if rows is None else rows @ part.double()

    weights = read(f.tensor.down)
    zero = weights.new_zeros(())
    linear, constant = zero.expand(len(weights), f.sizes.d_in), zero.expand(len(weights))
    if f.linear is not None:
        linear = read(f.linear)
    if f.constant is not None:
        constant = read(f.constant)
    before = None if rows is None else rows.abs() @ f.tensor.down.double().abs()
    usable = weights.isfinite().all(dim=1) & linear.isfinite().all(dim=1) & constant.isfinite()
    return Problem(
        widened(f.tensor.left),
        widened(f.tensor.right),
        torch.where(usable[:, None], weights, zero),
        torch.where(usable[:, None], linear, zero),
        torch.where(usable, constant, zero),
        usable,
        f.basis,
        None if before is None else torch.where(usable[:, None], before, zero),
        0 if before is None else f.sizes.d_out,
    )


def widened(factor: Tensor) -> Tensor:
    """Return a factor in its own dtype if a solver can work in it, else in float32, exactly."""
    return factor if factor.dtype in (torch.float32, torch.float64) else factor.float()
