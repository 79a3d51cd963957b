"""The factors of a map read in given features: what every reading of S = DᵀQD shares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import Status
from bilens.algebra.gram.inner_products import squared_norms
from bilens.algebra.gram.kernel import blocks
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.base.checks import check_dense_tensor, check_finite, check_type
from bilens.base.errors import ShapeError, UsageError
from bilens.base.memory import check_memory

EXPONENT_LIMIT = 1000  # 2^±1000 is a normal number, whatever it multiplies was
INTEGERS = (torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8)


@dataclass(frozen=True, eq=False)
class FeatureFactors:
    """P_m = [L d_m, R d_m] for the columns d_m of a dictionary, in a scale of its own."""

    # With w the weights of an output direction, S = DᵀQD has the entries S[m, n] = ½ Σ_h w_h
    # [(Ld_m)_h (Rd_n)_h + (Rd_m)_h (Ld_n)_h]. Every row of L and R, and D as a whole, is divided by
    # a power of two, so that nothing overflows and no bit changes.

    left: Tensor  # (hidden, in), L with largest entries between ½ and 1
    right: Tensor  # (hidden, in), R likewise
    dictionary: Tensor  # (in, features), D as it came, of any floating dtype: no copy is made
    row_exponent: Tensor  # (hidden,), of the power of two taken out of L and R together
    dictionary_exponent: Tensor  # scalar, of the power of two taken out of D
    precision: torch.dtype  # dtype of `rows` and of products of them
    # (features, 2·hidden), the rows of all features; None where they do not fit
    kept: Tensor | None

    @classmethod
    def from_map(
        cls,
        f: QuadraticMap,
        dictionary: Tensor,
        precision: torch.dtype = torch.float64,
        block: int = 1,
        keep: bool = False,
    ) -> FeatureFactors:
        """Return the factors of a float64 map in the columns of an (in, features) dictionary."""
        left, left_exponent = without_power_of_two(f.tensor.left)
        right, right_exponent = without_power_of_two(f.tensor.right)
        low, high = dictionary.aminmax()
        exponent = exponent_of(torch.maximum(-low, high).double())
        row_exponent = left_exponent + right_exponent
        factors = cls(left, right, dictionary, row_exponent, exponent, precision, None)
        if not keep:
            return factors
        kept = left.new_empty(factors.num_features, 2 * len(left), dtype=precision)
        for part in blocks(factors.num_features, block):
            kept[part] = factors.rows(part)
        return replace(factors, kept=kept)

    @property
    def num_features(self) -> int:
        return self.dictionary.shape[1]

    def columns(self, part: slice | int) -> Tensor:
        """Return some columns of D as contiguous float64 rows, the largest of all below one."""
        rows = self.dictionary[:, part].T if isinstance(part, slice) else self.dictionary[:, part]
        # Contiguous, so that all lie alike in memory: the order of a sum may depend on that.
        return rows.double().contiguous() * torch.exp2(-self.dictionary_exponent)

    def rows(self, part: slice) -> Tensor:
        """Return P of a range of features, (block, 2·hidden), in `precision`."""
        if self.kept is not None:
            return self.kept[part]
        columns = self.columns(part)
        both = torch.cat([columns @ self.left.T, columns @ self.right.T], dim=1)
        return both.to(self.precision)

    def exact_rows(self, features: Tensor) -> Tensor:
        """Return P of any (num,) features, (num, 2·hidden) float64, one feature at a time."""
        # Equal features give equal bits, whatever stands beside them: one product does not.
        columns = (self.columns(feature) for feature in features.tolist())
        return torch.stack(
            [torch.cat([self.left @ column, self.right @ column]) for column in columns]
        )

    def corner(self) -> Tensor:
        """Return C of Dᵀ = Y Cᵀ, Y orthonormal columns, (in, rank), from `in` features a time."""
        triangle = self.left.new_zeros(0, len(self.dictionary))
        for part in blocks(self.num_features, len(self.dictionary)):
            triangle = torch.linalg.qr(torch.cat([triangle, self.columns(part)]), mode="r").R
        return triangle.T

    def balanced(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return (..., hidden) weights, the largest from ½ to 1, and units with S = unit · S'."""
        # A unit, (...), is a power of two; 0 or infinite where float64 does not hold it.
        mantissa, exponent = torch.frexp(weight)
        total = exponent.double() + self.row_exponent
        largest = total.where(mantissa != 0, -torch.inf).amax(dim=-1)
        largest = largest.where(largest > -torch.inf, 0.0)
        shift = (total - largest[..., None]).clamp(max=0)
        return mantissa * torch.exp2(shift), torch.exp2(largest + 2 * self.dictionary_exponent)


def without_power_of_two(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows / 2^e and e, (num,) float64, with largest entries between ½ and 1."""
    exponent = exponent_of(rows.abs().amax(dim=1))
    return rows * torch.exp2(-exponent)[:, None], exponent


def exponent_of(largest: Tensor) -> Tensor:
    """Return e, float64, for which `largest` / 2^e lies between ½ and 1."""
    return torch.frexp(largest).exponent.double().clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT)


def interaction_submatrix(
    f: QuadraticMap,
    dictionary: Tensor,
    output_direction: Tensor | int,
    features: Tensor | Sequence[int],
) -> Tensor:
    """Return the rows and columns of S = DᵀQD that belong to some features, in the order given.

    The off-diagonal entry is half the coefficient of z_m z_n. To see what surrounds the largest
    entries, pass `result[c].features()` of `direct_interactions`.

    Cost: O(num · hidden · (in + num)) time, O(num · hidden + num²) memory; the dictionary is read
        in the columns asked for alone.

    Args:
        f: the map.
        dictionary: D, (in, features), one feature a column.
        output_direction: u, (out,), or one output by number.
        features: (num,) indices of columns; repeated ones are allowed.

    Returns: (num, num) float64, symmetric.
    Raises: ShapeError if the parts do not fit together; NonFiniteError if the direction or a column
        asked for is not finite, or an interaction is outside float64; UsageError if f is no map, or
        there is no such feature; MemoryLimitError if the matrix would not fit.
    Source: arXiv:2410.08417, §5.1 (interactions of SAE features).
    """
    check_dictionary(f, dictionary)
    chosen = check_numbers("features", features, dictionary.shape[1]).to(dictionary.device)
    num, hidden = len(chosen), f.sizes.d_hidden
    check_memory(
        8 * (3 * num * num + 6 * num * hidden),
        f"the interactions of {num} features with each other",
        "ask for fewer features",
        device=f.device,
    )
    with torch.no_grad():
        columns = dictionary[:, chosen].detach().to(f.tensor.down.device).double()
        check_finite("dictionary[:, features]", columns)
        f = f.detach().to(torch.float64)
        factors = FeatureFactors.from_map(f, columns)
        weight = f.form(output_direction).matrix.weight
        scaled, unit = factors.balanced(weight)
        left, right = factors.exact_rows(torch.arange(num)).tensor_split(2, dim=1)
        half = (left * scaled) @ right.T
        matrix = (half + half.T) / 2 * unit
    return check_finite("the matrix of interactions", matrix)


def exact_values(factors: FeatureFactors, weight: Tensor, first: Tensor, second: Tensor) -> Tensor:
    """Return S'[m, n] for (num,) pairs of features, float64; equal columns give equal bits."""
    if len(first) == 0:
        return weight[:0]
    features, position = torch.unique(torch.cat([first, second]), return_inverse=True)
    left, right = factors.exact_rows(features).tensor_split(2, dim=1)
    m, n = position.tensor_split(2)
    return ((left[m] * right[n] + right[m] * left[n]) * weight).sum(dim=1) / 2


def check_dictionary(f: QuadraticMap, dictionary: Tensor) -> int:
    """Return the number of features of a dictionary that fits a map; entries are not looked at."""
    check_type("f", f, QuadraticMap, "use the layer's quadratic_map()")
    rows, num_features = check_dense_tensor("dictionary", dictionary, num_axes=2)
    if rows != f.sizes.d_in or num_features == 0:
        raise ShapeError(
            f"dictionary has shape {tuple(dictionary.shape)}; the map reads {f.sizes.d_in} inputs, "
            f"so ({f.sizes.d_in}, features) was expected, one feature a column: "
            "pass the transpose of a decoder that holds one feature a row."
        )
    return num_features


def check_numbers(name: str, numbers: Tensor | Sequence[int], available: int) -> Tensor:
    """Return numbers of features or latents, each from 0 on, as int64."""
    chosen = torch.as_tensor(numbers)
    if chosen.dtype not in INTEGERS or chosen.ndim != 1 or len(chosen) == 0:
        raise UsageError(
            f"{name} holds {chosen.dtype} in shape {tuple(chosen.shape)}; a list of numbers was "
            "expected."
        )
    if int(chosen.min()) < 0 or int(chosen.max()) >= available:
        raise UsageError(
            f"{name} runs from {int(chosen.min())} to {int(chosen.max())}; there are 0 to "
            f"{available - 1}."
        )
    return chosen.long()


SPARE = 32  # candidates beyond those asked for: rounding must not decide who is listed


@dataclass(frozen=True, eq=False)
class InteractionEngine:
    """S = unit · S' along many directions, S' in the scale of the feature factors."""

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
    def from_map(
        cls, f: QuadraticMap, rows: Tensor | None, bias: Tensor, factors: FeatureFactors, block: int
    ) -> InteractionEngine:
        # One product for each row, so that no bit depends on the other rows.
        down = f.tensor.down
        weights = down if rows is None else torch.stack([row @ down for row in rows])
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
        """Return norm, linear term and constant of each direction, once its entries were listed."""
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
        weights = self.along_directions(f.tensor.down)
        left, right = f.tensor.left @ bias, f.tensor.right @ bias
        linear = (weights * right) @ f.tensor.left + (weights * left) @ f.tensor.right
        if f.linear is not None:
            linear = linear + self.along_directions(f.linear)
        result = linear.new_empty(len(linear), dictionary.shape[1])
        for part in blocks(dictionary.shape[1], self.block):
            torch.mm(linear, dictionary[:, part].double(), out=result[:, part])
        return result, self.along_directions(f(bias))

    def along_directions(self, part: Tensor) -> Tensor:
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
        return tuple(Status.OK if good else Status.NOT_FINITE for good in self.known.tolist())


def check_bias(bias: Tensor | None, f: QuadraticMap) -> Tensor:
    if bias is None:
        return f.tensor.down.new_zeros(f.sizes.d_in)
    check_shape("bias", bias, (f.sizes.d_in,))
    return bias.detach().to(f.tensor.down)
