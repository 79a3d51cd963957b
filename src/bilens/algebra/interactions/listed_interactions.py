"""The largest interactions along many output directions, without all entries of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.gram.kernel import blocks
from bilens.algebra.interactions.feature_factors import (
    SPARE,
    FeatureFactors,
    InteractionEngine,
    Progress,
    check_bias,
    check_dictionary,
    checked_rows,
)
from bilens.algebra.interactions.record import ListedEntries, ListedInteractions
from bilens.algebra.interactions.streaming_statistics import by_size
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count, check_finite
from bilens.base.memory import check_memory, memory_limit as allowed_memory

CHUNK = 64  # directions whose dense forms are held at a time
PACKED_ROWS = 8  # of upper triangles that are formed at a time
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
    """Return the largest interactions of a dictionary along many output directions."""
    # Math: S = DᵀQD. The diagonal, ‖S‖ and the mean come from the factors, exactly. For the entries
    # above the diagonal Q is formed in float32, of many directions at once, and QD; DᵀQD itself is
    # computed in 8 bits, with a bound on the error (`screening`), and what may be among the largest
    # anew, in float64 from the factors.
    # Source: arXiv:2410.08417, §5.1 and App. N.
    features = check_dictionary(f, dictionary)
    check_finite("dictionary", dictionary)
    rows = checked_rows(directions, f.sizes.d_out)
    num = f.sizes.d_out if rows is None else len(rows)
    top = check_count("top", top, minimum=1)
    packed = plan_packed(f, features, num, memory_limit)
    with torch.no_grad():
        f = f.detach().to(torch.float64)
        rows = None if rows is None else rows.to(f.tensor.down.device)
        dictionary = dictionary.detach().to(f.tensor.down.device)
        factors = FeatureFactors.from_map(f, dictionary, torch.float64, ROWS, keep=True)
        weights = f.tensor.down if rows is None else rows @ f.tensor.down
        engine = InteractionEngine.from_map(f, rows, check_bias(bias, f), factors, weights, ROWS)
        lister = Lister(
            engine,
            factors.columns(slice(None)).float(),
            shares_of_outputs(engine, rows) if packed and rows is not None else None,
        )
        own, cross = lister.own(top), lister.cross(top, progress)
        totals = engine.totals(own.values, cross.values)
    return ListedInteractions(
        without(own, ~totals.known),
        without(cross, ~totals.known),
        totals.norm,
        totals.linear,
        totals.constant,
        totals.status,
    )


def plan_packed(f: QuadraticMap, features: int, num: int, limit: int | str | None) -> bool:
    """Return whether to form the matrices of all outputs first, which more directions share."""
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
        device=f.device,
    )
    packed = 4 * d_out * d_in * (d_in + 1) // 2 + 8 * d_in**2 + 4 * 3 * hidden * PACKED_ROWS * d_in
    return num > d_out and need + packed <= allowed_memory(limit, f.device)


@dataclass(frozen=True, eq=False)
class Lister:
    """Lists the largest entries along the directions of an engine, whose rows are kept."""

    engine: InteractionEngine
    columns: Tensor  # (features, in) float32, the features
    # the forms of all outputs, and (num, out) how much of each a direction takes; None where each
    # form is made from the factors
    shared: tuple[PackedForms, Tensor] | None

    @property
    def halves(self) -> tuple[Tensor, Tensor]:
        """L and R in the features, (features, hidden) each."""
        assert self.engine.factors.kept is not None, "asked for in the beginning"
        left, right = self.engine.factors.kept.tensor_split(2, dim=1)
        return left, right

    def own(self, top: int) -> ListedEntries:
        """Return the self-interactions, O(features · hidden) a direction."""
        left, right = self.halves
        diagonal = self.engine.weights @ (left * right).T
        order = diagonal.abs().argsort(dim=1, descending=True, stable=True)[:, :top]
        return ListedEntries(
            "self",
            order,
            order,
            diagonal.gather(1, order) * self.engine.units[:, None],
            diagonal.mean(dim=1) * self.engine.units,
            diagonal.std(dim=1, correction=0) * self.engine.units,
            diagonal.shape[1],
        )

    def cross(self, top: int, progress: Progress | None) -> ListedEntries:
        features = len(self.columns)
        count = features * (features - 1) // 2
        listed = min(top, count)
        num = len(self.engine.weights)
        keys = torch.empty(num, listed, dtype=torch.int64, device=self.columns.device)
        values = self.engine.weights.new_empty(num, listed)
        screen = Screen(self.columns)
        reached = torch.empty_like(self.columns)
        mean, spread = self._moments(count)
        for part in blocks(num if count > 0 else 0, CHUNK):
            for row, form in zip(range(num)[part], self._forms(part), strict=True):
                keys[row], values[row] = self._largest(row, form, screen, reached, listed, count)
                if progress is not None:
                    progress(row + 1, num)
        return ListedEntries(
            "cross",
            keys // features,
            keys % features,
            values * self.engine.units[:, None],
            mean * self.engine.units,
            spread * self.engine.units,
            count,
        )

    def _forms(self, part: slice) -> Iterator[Tensor]:
        if self.shared is not None:
            forms, shares = self.shared
            for triangle in forms.along(shares[part]):
                yield forms.square(triangle)
            return
        left, right = self.engine.factors.left.float(), self.engine.factors.right.float()
        for weight in self.engine.weights[part].float():
            half = (left.T * (weight / 2)) @ right
            yield half + half.T

    def _largest(
        self, row: int, form: Tensor, screen: Screen, reached: Tensor, listed: int, count: int
    ) -> tuple[Tensor, Tensor]:
        """Return keys and exact values of the largest entries of one direction."""
        features, weight = len(self.columns), self.engine.weights[row]
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

    def _moments(self, count: int) -> tuple[Tensor, Tensor]:
        """Return mean and standard deviation of the entries above the diagonal, (num,) each."""
        # Math: Σ_{m<n} S = ½ (1ᵀS1 − tr S), and the same for the squares.
        left, right = self.halves
        diagonal = self.engine.weights @ (left * right).T
        everything = self.engine.weights @ (left.sum(dim=0) * right.sum(dim=0))
        entries = max(count, 1)
        mean = (everything - diagonal.sum(dim=1)) / 2 / entries
        square = (self.engine.squares - diagonal.square().sum(dim=1)).clamp(min=0) / 2 / entries
        return mean, (square - mean.square()).clamp(min=0).sqrt()


def shares_of_outputs(engine: InteractionEngine, rows: Tensor) -> tuple[PackedForms, Tensor] | None:
    """Return the forms of all outputs, and how much of each a direction takes."""
    # None where the outputs cancel along a direction, so that float32 would be left with rounding.
    factors = engine.factors
    down = engine.f.tensor.down * torch.exp2(factors.row_exponent)
    largest = down.abs().max()
    down = down / largest
    scale = torch.exp2(2 * factors.dictionary_exponent) * largest / engine.units
    shares = (rows * scale[:, None]).where(engine.usable[:, None], 0.0)
    if not bool((shares.abs() @ down.abs()).max() < MOST_CANCELLING):  # NaN too
        return None
    forms = PackedForms.from_factors(down.float(), factors.left.float(), factors.right.float())
    return forms, shares.float()


def without(entries: ListedEntries, gap: Tensor) -> ListedEntries:
    return replace(
        entries,
        first=entries.first.masked_fill(gap[:, None], -1),
        second=entries.second.masked_fill(gap[:, None], -1),
        values=entries.values.masked_fill(gap[:, None], torch.nan),
        mean=entries.mean.masked_fill(gap, torch.nan),
        std=entries.std.masked_fill(gap, torch.nan),
    )


@dataclass(frozen=True, eq=False)
class PackedForms:
    """The upper triangles of Q_o for every output o, side by side, in float32."""

    triangles: Tensor  # (out, in·(in + 1)/2), row by row
    positions: Tensor  # (in²,) int64, where each entry of the square is in a triangle

    @classmethod
    def from_factors(cls, down: Tensor, left: Tensor, right: Tensor) -> PackedForms:
        # Math: Q_o[i, j] = ½ Σ_h down_oh (left_hi right_hj + right_hi left_hj) for i ≤ j.
        width = left.shape[1]
        row, column = torch.triu_indices(width, width).to(left.device)
        triangles = left.new_empty(len(down), len(row))
        done = 0
        half = down / 2
        for part in blocks(width, PACKED_ROWS):
            products = [
                left[:, i, None] * right[:, i:] + right[:, i, None] * left[:, i:]
                for i in range(part.start, part.stop)
            ]
            entries = torch.cat(products, dim=1)
            triangles[:, done : done + entries.shape[1]] = half @ entries
            done += entries.shape[1]
        positions = torch.empty(width, width, dtype=torch.int64, device=left.device)
        positions[row, column] = positions[column, row] = torch.arange(len(row), device=left.device)
        return cls(triangles, positions.flatten())

    def along(self, directions: Tensor) -> Tensor:
        """Return the triangles of Σ_o u_o Q_o for (num, out) directions, (num, in·(in + 1)/2)."""
        return directions @ self.triangles

    def square(self, triangle: Tensor) -> Tensor:
        width = round(len(self.positions) ** 0.5)
        return triangle.index_select(0, self.positions).view(width, width)


STEPS = 127  # of an 8-bit integer, on either side of zero
EXACT_IN_FLOAT = 2**24 // STEPS**2  # terms whose integer sum float32 holds exactly
ROWS = 256  # of the product at a time: it stays in the cache
PRODUCT_BYTES = 64 * 2**20  # of the products that are kept until a threshold is known
MARGIN = 1 + 1e-5  # of the bound, for the rounding of the norms in float32


@dataclass(frozen=True, eq=False)
class Rounded:
    """Rows as unit · integers, and how far that is from them."""

    integers: Tensor  # (num, width) int8
    unit: float  # what an integer of one stands for
    error: float  # the largest norm of a row less its rounded self
    norm: float  # the largest norm of a rounded row, `error` included

    @classmethod
    def from_rows(cls, rows: Tensor, space: Workspace | None = None) -> Rounded:
        space = Workspace.like(rows) if space is None else space
        low, high = rows.aminmax()
        unit = float(torch.maximum(-low, high)) / STEPS
        if unit == 0:
            return cls(space.integers.zero_(), 1.0, 0.0, 0.0)
        scaled = torch.div(rows, unit, out=space.scaled)
        nearest = torch.round(scaled, out=space.nearest)
        integers = space.integers.copy_(nearest)
        lost = scaled.sub_(nearest)
        error = float(torch.linalg.vector_norm(lost, dim=1).max()) * unit * MARGIN
        norm = float(torch.linalg.vector_norm(rows, dim=1).max()) * MARGIN
        return cls(integers, unit, error, norm + error)


@dataclass(frozen=True, eq=False)
class Workspace:
    """Memory that is written anew for each set of rows: fresh memory costs more than the work."""

    scaled: Tensor  # (num, width) float32
    nearest: Tensor  # likewise
    integers: Tensor  # (num, width) int8

    @classmethod
    def like(cls, rows: Tensor) -> Workspace:
        return cls(
            torch.empty_like(rows), torch.empty_like(rows), torch.empty_like(rows, dtype=torch.int8)
        )


class Screen:
    """Screens the products of (num, width) float32 rows A with one B after another."""

    def __init__(self, rows: Tensor) -> None:
        self.rows = rows
        self.rounded = Rounded.from_rows(rows)
        self.space = Workspace.like(rows)

    def may_be_largest(self, others: Tensor, num: int) -> tuple[Tensor, Tensor]:
        """Return positions above the diagonal of A · Bᵀ, among them the `num` largest in size."""
        # Math: |a·b − â·b̂| ≤ ‖a − â‖ ‖b‖ + ‖â‖ ‖b − b̂‖. An entry is left out if its rounded size
        # and this bound together do not reach the `num`-th largest of some entries computed in
        # full.
        other = Rounded.from_rows(others, self.space)
        unit = self.rounded.unit * other.unit
        bound = self.rounded.error * other.norm + self.rounded.norm * other.error
        best = self.rows.new_empty(0)
        found: list[Tensor] = []
        features = len(self.rows)
        for strip in blocks(features, max(ROWS, PRODUCT_BYTES // (4 * features))):
            parts = list(blocks(strip.stop, ROWS, strip.start))
            products = [self._sizes(part, other) for part in parts]
            peaks = [product.amax(dim=1) for product in products]
            best = torch.cat([best, self._full_sizes(parts, products, peaks, others, num)])
            best = best.topk(min(num, len(best))).values
            least = (float(best[-1]) - bound) / unit if len(best) == num else -1.0
            for part, product, peak in zip(parts, products, peaks, strict=True):
                near = (peak >= least).nonzero()[:, 0]
                position = (product[near] >= least).nonzero()
                found.append(torch.stack([near[position[:, 0]], position[:, 1]]) + part.start)
        first, second = torch.cat(found, dim=1)
        above = second > first
        return first[above], second[above]

    def _sizes(self, part: slice, other: Rounded) -> Tensor:
        """Return |Â · B̂ᵀ| of some rows, from their first one on; zero up to the diagonal."""
        product = integer_product(self.rounded.integers[part], other.integers[part.start :].T)
        product[:, : part.stop - part.start].triu_(1)
        return product.abs_()

    def _full_sizes(
        self,
        parts: list[slice],
        products: list[Tensor],
        peaks: list[Tensor],
        others: Tensor,
        num: int,
    ) -> Tensor:
        """Return the sizes, computed in full, of the largest entries of the rows that peak most."""
        high = torch.cat(peaks).topk(min(num, sum(map(len, peaks)))).indices
        first, second = [], []
        for part, product in zip(parts, products, strict=True):
            offset = part.start - parts[0].start
            mine = high[(high >= offset) & (high < offset + len(product))] - offset
            first.append(mine + part.start)
            second.append(product[mine].argmax(dim=1) + part.start)
        m, n = torch.cat(first), torch.cat(second)
        above = n > m  # not a zero below the diagonal
        sizes: Tensor = (self.rows[m[above]] * others[n[above]]).sum(dim=1).abs()
        return sizes


def integer_product(first: Tensor, second: Tensor) -> Tensor:
    product = getattr(torch, "_int_mm", None)
    if product is not None and first.device.type == "cpu":
        return product(first, second)  # type: ignore[no-any-return]
    dtype = torch.float32 if first.shape[1] <= EXACT_IN_FLOAT else torch.float64
    return first.to(dtype) @ second.to(dtype)
