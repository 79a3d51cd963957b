"""The largest interactions along many output directions, without all entries of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.direct.direct_interactions import Progress, check_bias, check_directions
from bilens.algebra.direct.exact_entries import check_dictionary
from bilens.algebra.direct.feature_factors import FeatureFactors
from bilens.algebra.direct.listed import ListedEntries, ListedInteractions
from bilens.algebra.direct.packed_forms import PackedForms, packed_bytes
from bilens.algebra.direct.reader import SPARE, squared_norms_in_features
from bilens.algebra.direct.running_top import by_size
from bilens.algebra.direct.screening import PRODUCT_BYTES, ROWS, Screen
from bilens.algebra.gram.blocks import blocks
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.status import Status
from bilens.base.checks import (
    check_count,
    check_finite,
    check_memory,
    memory_limit as allowed_memory,
)

CHUNK = 64  # directions whose dense forms are held at a time
MOST_CANCELLING = 2.0**10  # terms over the result, where float32 keeps four digits of the result


def listed_interactions(
    f: QuadraticMap,
    dictionary: Tensor,
    directions: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    top: int = 20,
    progress: Progress | None = None,
    memory_limit: int | str | None = None,
) -> ListedInteractions:
    """Return the largest interactions of a dictionary along many output directions.

    The same lists and values as `direct_interactions`, with mean and spread, several times faster
    where the input is narrower than the hidden layer, as it is in a language model.

    Math: S = DᵀQD. The diagonal, ‖S‖ and the mean come from the factors, exactly. For the entries
        above the diagonal Q is formed in float32, of many directions at once, and QD; DᵀQD itself
        is computed in 8 bits, with a bound on the error (`screening`), and what may be among the
        largest anew, in float64 from the factors.
    Cost: a direction: features² · in operations in 8 bits, 2 · features · in² in float32 and
        in² · min(out, 2 · hidden), and O(hidden · (features + hidden)) of large products in
        float64. Memory: 2 · features · hidden float64 numbers, 64 · in² and, where there are more
        directions than outputs and it fits, out · in² / 2 float32 numbers.
    Accuracy: values are float64. Rounding of float32 can decide who is listed only where more
        than 32 others equal the last one within 1e-6 · Σ_h |w_h (Ld_m)_h (Rd_n)_h|.

    Args:
        f: the map.
        dictionary: D, (in, features), one feature a column.
        directions: (num, out), one output direction a row; None reads every output as it is.
        bias: b, (in,), of the decoder; None is zero.
        top: entries listed of each kind; fewer where there are fewer.
        progress: called with directions done, and all of them.
        memory_limit: bytes, or a text such as "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of
            the memory at hand.

    Raises:
        ShapeError: If dictionary, directions or bias do not fit.
        NonFiniteError: If dictionary or bias hold NaN or infinity.
        UsageError: If f is no map, or top is less than 1.
        MemoryLimitError: If the work would not fit; `direct_interactions` needs less.

    Source: arXiv:2410.08417, §5.1 and App. N.
    """
    features = check_dictionary(f, dictionary)
    check_finite("dictionary", dictionary)
    rows = check_directions(directions, f.sizes.d_out)
    top = check_count("top", top, minimum=1)
    packed = plan_packed(f, features, len(rows), memory_limit)
    with torch.no_grad():
        f = f.detach().to(torch.float64)
        bias = check_bias(bias, f)
        dictionary = dictionary.detach().to(f.tensor.down.device)
        lister = Lister.of(f, rows, dictionary, packed)
        masses = lister.norms()
        own, cross = lister.own(top), lister.cross(top, masses, progress)
        linear, constant = affine_terms(f, rows, dictionary, bias)
    known = lister.usable & linear.isfinite().all(dim=1) & constant.isfinite()
    known &= own.values.isfinite().all(dim=1) & cross.values.isfinite().all(dim=1)
    gap = ~known
    return ListedInteractions(
        without(own, gap),
        without(cross, gap),
        norm=(masses.sqrt() * lister.units).masked_fill(gap, torch.nan),
        linear=linear.masked_fill(gap[:, None], torch.nan),
        constant=constant.masked_fill(gap, torch.nan),
        status=tuple(Status.OK if good else Status.NOT_FINITE for good in known.tolist()),
    )


def plan_packed(f: QuadraticMap, features: int, num: int, limit: int | str | None) -> bool:
    """Return whether to form the matrices of all outputs first, which more directions share.

    Raises:
        MemoryLimitError: If the work does not fit even without.
    """
    d_out, hidden, d_in = f.sizes
    kept = 8 * 2 * features * hidden + 8 * 3 * hidden * hidden
    chunk = 4 * CHUNK * d_in * (d_in + 1) // 2 + 8 * d_in**2
    screen = PRODUCT_BYTES + 4 * features * (4 * ROWS + 5 * d_in)
    results = 8 * num * (3 * features + 4 * hidden)
    factors = 8 * 4 * (d_out + 2 * d_in) * hidden
    need = kept + chunk + screen + results + factors
    check_memory(
        need,
        f"listing interactions of {features} features along {num} directions",
        "read fewer features or directions, or use direct_interactions",
        limit,
    )
    return num > d_out and need + packed_bytes(*f.sizes) <= allowed_memory(limit)


@dataclass(frozen=True, eq=False)
class Lister:
    """Everything that the directions share, in the scale of the feature factors.

    Attributes:
        factors: of the map, in the features, with their rows kept.
        columns: (features, in) float32, the features.
        weights: (num, hidden) float64, the largest of each row between ½ and 1.
        units: (num,), S = unit · S'.
        usable: (num,) bool.
        shared: the forms of all outputs, and (num, out) how much of each a direction takes; None
            where each form is made from the factors.
    """

    factors: FeatureFactors
    columns: Tensor
    weights: Tensor
    units: Tensor
    usable: Tensor
    shared: tuple[PackedForms, Tensor] | None

    @classmethod
    def of(cls, f: QuadraticMap, rows: Tensor, dictionary: Tensor, packed: bool) -> Lister:
        """Prepare what all directions share, in O(features · hidden · in)."""
        factors = FeatureFactors.of(f, dictionary, torch.float64, ROWS, keep=True)
        raw = rows @ f.tensor.down
        usable = raw.isfinite().all(dim=1)
        balanced = [factors.balanced(row) for row in raw.where(usable[:, None], 0.0)]
        weights, units = (torch.stack(parts) for parts in zip(*balanced, strict=True))
        usable &= (units > 0) & units.isfinite()
        weights = weights.where(usable[:, None], 0.0)
        columns = factors.columns(slice(None)).float()
        shares = None if not packed else shares_of_outputs(f, factors, rows, units, usable)
        return cls(factors, columns, weights, units, usable, shares)

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """L and R in the features, (features, hidden) each."""
        assert self.factors.kept is not None, "asked for in `of`"
        left, right = self.factors.kept.tensor_split(2, dim=1)
        return left, right

    def own(self, top: int) -> ListedEntries:
        """Return the self-interactions, O(features · hidden) a direction."""
        left, right = self.halves
        diagonal = self.weights @ (left * right).T
        order = diagonal.abs().argsort(dim=1, descending=True, stable=True)[:, :top]
        return ListedEntries(
            "self",
            order,
            order,
            diagonal.gather(1, order) * self.units[:, None],
            diagonal.mean(dim=1) * self.units,
            diagonal.std(dim=1, correction=0) * self.units,
            diagonal.shape[1],
        )

    def norms(self) -> Tensor:
        """Return ‖S'‖_F², (num,)."""
        return squared_norms_in_features(self.factors, self.weights)

    def cross(self, top: int, masses: Tensor, progress: Progress | None) -> ListedEntries:
        """Return the cross-interactions."""
        features = len(self.columns)
        count = features * (features - 1) // 2
        listed = min(top, count)
        num = len(self.weights)
        keys = torch.empty(num, listed, dtype=torch.int64, device=self.columns.device)
        values = self.weights.new_empty(num, listed)
        screen = Screen(self.columns)
        reached = torch.empty_like(self.columns)
        mean, spread = self._moments(masses, count)
        for part in blocks(num if count > 0 else 0, CHUNK):
            for row, form in zip(range(num)[part], self._forms(part), strict=True):
                keys[row], values[row] = self._largest(row, form, screen, reached, listed, count)
                if progress is not None:
                    progress(row + 1, num)
        return ListedEntries(
            "cross",
            keys // features,
            keys % features,
            values * self.units[:, None],
            mean * self.units,
            spread * self.units,
            count,
        )

    def _forms(self, part: slice) -> Iterator[Tensor]:
        """Yield the (in, in) float32 forms of some directions."""
        if self.shared is not None:
            forms, shares = self.shared
            for triangle in forms.along(shares[part]):
                yield forms.square(triangle)
            return
        left, right = self.factors.left.float(), self.factors.right.float()
        for weight in self.weights[part].float():
            half = (left.T * (weight / 2)) @ right
            yield half + half.T

    def _largest(
        self, row: int, form: Tensor, screen: Screen, reached: Tensor, listed: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Return keys and exact values of the largest entries of one direction.

        `reached` is memory for DᵀQ.
        """
        features, weight = len(self.columns), self.weights[row]
        spare = min(listed + SPARE, count)
        if not bool(weight.any()):
            first, second = torch.triu_indices(min(features, spare + 1), features, 1)[:, :spare]
        else:
            torch.mm(self.columns, form, out=reached)
            first, second = screen.may_be_largest(reached, spare)
            sizes = (self.columns[first] * reached[second]).sum(dim=1).abs()
            kept = sizes.topk(spare).indices
            first, second = first[kept], second[kept]
        left, right = self.halves
        products = left[first] * right[second] + right[first] * left[second]
        exact = products @ weight / 2
        keys = first * features + second
        order = by_size(exact, keys)[:listed]
        return keys[order], exact[order]

    def _moments(self, masses: Tensor, count: int) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the entries above the diagonal, (num,) each.

        Math: Σ_{m<n} S = ½ (1ᵀS1 − tr S), and the same for the squares.
        """
        left, right = self.halves
        diagonal = self.weights @ (left * right).T
        everything = self.weights @ (left.sum(dim=0) * right.sum(dim=0))
        entries = max(count, 1)
        mean = (everything - diagonal.sum(dim=1)) / 2 / entries
        square = (masses - diagonal.square().sum(dim=1)).clamp(min=0) / 2 / entries
        return mean, (square - mean.square()).clamp(min=0).sqrt()


def shares_of_outputs(
    f: QuadraticMap, factors: FeatureFactors, rows: Tensor, units: Tensor, usable: Tensor
) -> tuple[PackedForms, Tensor] | None:
    """Return the forms of all outputs, and how much of each a direction takes.

    None where the outputs cancel along a direction, so that float32 would be left with rounding.
    """
    down = f.tensor.down * torch.exp2(factors.row_exponent)
    largest = down.abs().max()
    down = down / largest
    scale = torch.exp2(2 * factors.dictionary_exponent) * largest / units
    shares = (rows * scale[:, None]).where(usable[:, None], 0.0)
    if not bool((shares.abs() @ down.abs()).max() < MOST_CANCELLING):  # NaN too
        return None
    forms = PackedForms.of(down.float(), factors.left.float(), factors.right.float())
    return forms, shares.float()


def affine_terms(
    f: QuadraticMap, rows: Tensor, dictionary: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return Dᵀ(2Qb + linear) and u·f(b) for all directions, (num, features) and (num,)."""
    weights = rows @ f.tensor.down
    left, right = f.tensor.left @ bias, f.tensor.right @ bias
    linear = (weights * right) @ f.tensor.left + (weights * left) @ f.tensor.right
    if f.linear is not None:
        linear = linear + rows @ f.linear
    return linear @ dictionary.double(), rows @ f(bias)


def without(entries: ListedEntries, gap: Tensor) -> ListedEntries:
    """Return the entries with those of some directions taken out."""
    return replace(
        entries,
        first=entries.first.masked_fill(gap[:, None], -1),
        second=entries.second.masked_fill(gap[:, None], -1),
        values=entries.values.masked_fill(gap[:, None], torch.nan),
        mean=entries.mean.masked_fill(gap, torch.nan),
        std=entries.std.masked_fill(gap, torch.nan),
    )
