"""The factors of a map, read in given features: from them come all entries of DᵀQD."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.gram.blocks import blocks
from bilens.algebra.quadratic_map import QuadraticMap

EXPONENT_LIMIT = 1000  # 2^±1000 is a normal number, whatever it multiplies was


@dataclass(frozen=True, eq=False)
class FeatureFactors:
    """P_m = [L d_m, R d_m] for the columns d_m of a dictionary, in a scale of its own.

    With w the weights of an output direction, S = DᵀQD has the entries
    S[m, n] = ½ Σ_h w_h [(Ld_m)_h (Rd_n)_h + (Rd_m)_h (Ld_n)_h]. Every row of L and R, and D as a
    whole, is divided by a power of two, so that nothing overflows and no bit changes. D is read
    some columns at a time.

    Attributes:
        left: (hidden, in), L with largest entries between ½ and 1.
        right: (hidden, in), R likewise.
        dictionary: (in, features), D as it came, of any floating dtype: no copy is made.
        row_exponent: (hidden,), of the power of two taken out of L and R together.
        dictionary_exponent: scalar, of the power of two taken out of D.
        precision: dtype of `rows` and of products of them.
        kept: (features, 2·hidden), the rows of all features; None where they do not fit.
    """

    left: Tensor
    right: Tensor
    dictionary: Tensor
    row_exponent: Tensor
    dictionary_exponent: Tensor
    precision: torch.dtype
    kept: Tensor | None

    @classmethod
    def of(
        cls,
        f: QuadraticMap,
        dictionary: Tensor,
        precision: torch.dtype = torch.float64,
        block: int = 1,
        keep: bool = False,
    ) -> FeatureFactors:
        """Return the factors of a float64 map in the columns of an (in, features) dictionary.

        Cost: O(hidden · in · features) time and O(hidden · features) memory if they are kept;
            O((hidden + features) · in) time and O(hidden · in) memory if not.
        """
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
        """Number of columns of the dictionary."""
        return self.dictionary.shape[1]

    def columns(self, part: slice | int) -> Tensor:
        """Return some columns of D as contiguous float64 rows, the largest of all below one."""
        rows = self.dictionary[:, part].T if isinstance(part, slice) else self.dictionary[:, part]
        # Contiguous, so that all lie alike in memory: the order of a sum may depend on that.
        return rows.double().contiguous() * torch.exp2(-self.dictionary_exponent)

    def rows(self, part: slice) -> Tensor:
        """Return P of a range of features, (block, 2·hidden), in `precision`.

        Cost: O(block · hidden · in), nothing if they are kept.
        """
        if self.kept is not None:
            return self.kept[part]
        columns = self.columns(part)
        both = torch.cat([columns @ self.left.T, columns @ self.right.T], dim=1)
        return both.to(self.precision)

    def exact_rows(self, features: Tensor) -> Tensor:
        """Return P of any (num,) features, (num, 2·hidden) float64, one feature at a time.

        Equal features give equal bits, whatever stands beside them; a product with many columns
        at once does not promise that.
        """
        columns = (self.columns(feature) for feature in features.tolist())
        return torch.stack(
            [torch.cat([self.left @ column, self.right @ column]) for column in columns]
        )

    def corner(self) -> Tensor:
        """Return C of Dᵀ = Y Cᵀ with orthonormal columns Y, (in, rank), from `in` features a time.

        Cost: O(features · in²) time, O(in²) memory.
        """
        triangle = self.left.new_zeros(0, len(self.dictionary))
        for part in blocks(self.num_features, len(self.dictionary)):
            triangle = torch.linalg.qr(torch.cat([triangle, self.columns(part)]), mode="r").R
        return triangle.T

    def along(self, vector: Tensor, block: int) -> Tensor:
        """Return Dᵀ v for an (in,) vector, (features,) float64, `block` features at a time."""
        parts = blocks(self.num_features, block)
        return torch.cat([vector @ self.dictionary[:, part].double() for part in parts])

    def balanced(self, weight: Tensor) -> tuple[Tensor, Tensor]:
        """Return the weights that belong to these factors, and the unit of what they give.

        S = unit · S', where S' is computed from these factors and the weights returned, of which
        the largest lies between ½ and 1; |S'| is at most hidden · in².

        Args:
            weight: w = downᵀu, (hidden,).

        Returns:
            (hidden,), and a power of two; 0 or infinite where float64 does not hold it.
        """
        mantissa, exponent = torch.frexp(weight)
        total = exponent.double() + self.row_exponent
        used = total[mantissa != 0]
        largest = used.max() if len(used) > 0 else total.new_zeros(())
        return (
            mantissa * torch.exp2(total - largest),
            torch.exp2(largest + 2 * self.dictionary_exponent),
        )


def without_power_of_two(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Return rows / 2^e and e, (num,) float64, with largest entries between ½ and 1."""
    exponent = exponent_of(rows.abs().amax(dim=1))
    return rows * torch.exp2(-exponent)[:, None], exponent


def exponent_of(largest: Tensor) -> Tensor:
    """Return e, float64, for which `largest` / 2^e lies between ½ and 1."""
    return torch.frexp(largest).exponent.double().clamp(-EXPONENT_LIMIT, EXPONENT_LIMIT)
