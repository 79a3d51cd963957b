"""What every reading of S = DᵀQD shares: arguments, scales, norms, affine terms, status."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import blocks
from bilens.algebra.gram.squared_norms import squared_norms
from bilens.algebra.interactions.feature_factors import FeatureFactors
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.status import Status
from bilens.base.checks import check_dense_tensor, check_float_tensor
from bilens.base.errors import ShapeError

Progress = Callable[[int, int], None]
SPARE = 32  # candidates beyond those asked for: rounding must not decide who is listed


@dataclass(frozen=True, eq=False)
class Engine:
    """S = unit · S' along many directions, S' in the scale of the feature factors.

    Entries are read from it in one of two ways: all of them, streamed in blocks
    (`direct_interactions`), or those alone that may be among the largest (`listed_interactions`).
    """

    f: QuadraticMap  # float64
    # (num, out) float64, the directions, of which some may not be finite; None for all outputs
    rows: Tensor | None
    bias: Tensor  # (in,)
    factors: FeatureFactors
    block: int  # features that are read at a time
    weights: Tensor  # (num, hidden), the largest of each row between ½ and 1; 0 if not usable
    units: Tensor  # (num,)
    usable: Tensor  # (num,) bool
    squares: Tensor  # (num,), ‖S'‖_F²

    @classmethod
    def of(
        cls,
        f: QuadraticMap,
        rows: Tensor | None,
        bias: Tensor,
        factors: FeatureFactors,
        weights: Tensor,
        block: int,
    ) -> Engine:
        """Return the engine of (num, hidden) weights downᵀu."""
        usable = weights.isfinite().all(dim=1)
        balanced, units = factors.balanced(weights.where(usable[:, None], 0.0))
        usable &= (units > 0) & units.isfinite()
        balanced = balanced.where(usable[:, None], 0.0)
        # With D'ᵀ = Y T (thin QR), S' = Y (T Q Tᵀ) Yᵀ has the norm of T Q Tᵀ, which is no wider
        # than the input.
        corner = factors.corner()
        squares = squared_norms(balanced, factors.left @ corner, factors.right @ corner)
        return cls(f, rows, bias, factors, block, balanced, units, usable, squares)

    def totals(self, *listed: Tensor) -> Totals:
        """Return what is known of each direction beside its entries, after these were listed."""
        linear, constant = self._affine()
        norm = self.squares.sqrt() * self.units
        known = self.usable & constant.isfinite() & norm.isfinite()
        for part in (linear, *listed):
            known &= part.isfinite().all(dim=1)
        return Totals(
            known,
            norm.masked_fill(~known, torch.nan),
            linear.masked_fill(~known[:, None], torch.nan),
            constant.masked_fill(~known, torch.nan),
        )

    def _affine(self) -> tuple[Tensor, Tensor]:
        """Return Dᵀ(2Qb + linear) and u·f(b), (num, features) and (num,)."""
        f, bias, dictionary = self.f, self.bias, self.factors.dictionary
        weights = self.read(f.tensor.down)
        left, right = f.tensor.left @ bias, f.tensor.right @ bias
        linear = (weights * right) @ f.tensor.left + (weights * left) @ f.tensor.right
        if f.linear is not None:
            linear = linear + self.read(f.linear)
        result = linear.new_empty(len(linear), dictionary.shape[1])
        for part in blocks(dictionary.shape[1], self.block):
            torch.mm(linear, dictionary[:, part].double(), out=result[:, part])
        return result, self.read(f(bias))

    def read(self, part: Tensor) -> Tensor:
        """Return a part of the map, (out, ...), along the directions."""
        return part if self.rows is None else self.rows @ part


@dataclass(frozen=True, eq=False)
class Totals:
    """Norm, linear term and constant of every direction; NaN where something is not finite."""

    known: Tensor  # (num,) bool
    norm: Tensor  # (num,)
    linear: Tensor  # (num, features)
    constant: Tensor  # (num,)

    @property
    def status(self) -> tuple[Status, ...]:
        """One for each direction."""
        return tuple(Status.OK if good else Status.NOT_FINITE for good in self.known.tolist())


def check_directions(directions: Tensor | None, d_out: int) -> Tensor | None:
    """Return the output directions as float64 rows; a row that is not finite passes."""
    if directions is None:
        return None
    num, length = check_dense_tensor("directions", directions, num_axes=2)
    if length != d_out or num == 0:
        raise ShapeError(
            f"directions has shape {(num, length)}; expected (num, {d_out}), one output direction "
            "a row."
        )
    return directions.detach().double()


def check_bias(bias: Tensor | None, f: QuadraticMap) -> Tensor:
    """Return the decoder's bias in the dtype of the map; zeros for None."""
    d_in = f.sizes.d_in
    if bias is None:
        return f.tensor.down.new_zeros(d_in)
    (length,) = check_float_tensor("bias", bias, num_axes=1)
    if length != d_in:
        raise ShapeError(f"bias has {length} entries; the map reads {d_in} inputs: pass ({d_in},).")
    return bias.detach().to(f.tensor.down)
