"""All entries of the interaction matrices, streamed: largest, moments, histograms."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import KW_ONLY, dataclass, replace
from functools import partial
from itertools import count

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import FactorSizes
from bilens.algebra.directions import check_directions
from bilens.algebra.gram.inner_products import no_negative
from bilens.algebra.gram.kernel import block_bytes, blocks
from bilens.algebra.interactions.feature_factors import (
    SPARE,
    FeatureFactors,
    InteractionEngine,
    check_bias,
    check_dictionary,
    exact_values,
)
from bilens.algebra.interactions.record import (
    DirectInteractions,
    Interactions,
    Kind,
    combined,
    unread,
)
from bilens.algebra.interactions.streaming_statistics import (
    Chunk,
    StreamingStatistics,
    by_size,
    check_bins,
    symmetric_edges,
)
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_count, check_finite
from bilens.base.errors import UsageError
from bilens.base.keyword_options import described, takes_options
from bilens.base.memory import check_memory, memory_limit

Progress = Callable[[int, int], None]  # done, total
PRECISIONS = (torch.float64, torch.float32)
RANGE = 8  # automatic edges of cross-interactions, in root mean squares: ≤ 1/64 lie outside
STRIP = 2**17  # entries: 1 MiB of float64, which stays in the cache for several passes
BLOCK = 1024  # wide enough for full speed of the product, small beside the features
ARRAYS_STRIP = 6  # of a strip: its entries, their sizes, powers, positions
ARRAYS_BLOCK = 2  # (block, block) alive at once: the last product, and the next one
ARRAYS_ROWS = 5  # (block, 2·hidden): both sides, weighted, in the making, and gaps of the heap
ARRAYS_COLUMNS = 2  # (block, in): columns of the dictionary in float64, and scaled


@dataclass(frozen=True)
class InteractionOptions:
    """The directions to read along, and the numbers that are kept of the interactions."""

    directions: Tensor | None = described(
        None, "(num, out), one output direction a row; None reads every output as it is."
    )
    _: KW_ONLY
    bias: Tensor | None = described(None, "b, (in,), of the decoder; None is zero.")
    top: int = described(20, "How many entries to list of each kind; fewer where there are fewer.")
    bins: int | Tensor = described(
        100,
        "Histogram of the cross-interactions: how many bins, or their edges in units of S. A "
        "number spans ±8 root mean squares (known beforehand, from the factors), rounded up to two "
        "digits; at most 1/64 lie outside (Chebyshev), counted in `below` and `above`.",
    )
    self_bins: int | Tensor | None = described(
        None,
        "The same for the self-interactions; None for what `bins` is. A number spans ± the largest "
        "one, rounded up to two digits, so that none lies outside.",
    )
    block: int | None = described(
        None, "Features a block; None for 1024, or fewer where the memory limit is near."
    )
    precision: torch.dtype = described(torch.float64, "Dtype of the products, float64 or float32.")
    progress: Progress | None = described(
        None, "Called with the number of blocks done, and of all blocks."
    )
    memory_limit: int | str | None = described(
        None, 'Bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.'
    )


@takes_options(InteractionOptions)
def direct_interactions(
    f: QuadraticMap, dictionary: Tensor, options: InteractionOptions
) -> DirectInteractions:
    """Read how the features of a dictionary interact in a map, along output directions.

    Math: with x = Dz + b, u·f(x) = zᵀSz + linear·z + constant and S = DᵀQD,
        S[m, n] = ½ Σ_h w_h [(Ld_m)_h (Rd_n)_h + (Rd_m)_h (Ld_n)_h], w = downᵀu;
        linear = Dᵀ(2Qb + Aᵀu), constant = u·f(b). The upper triangle of S is streamed in blocks;
        what is kept of it are the largest entries, moments and histograms.
    Cost: 2 · features² · hidden operations a direction, and O(features · hidden · in) once;
        O(block · (block + hidden + in) + hidden · in + in²) memory beside the inputs, of which no
        second dictionary, and O(directions · features) for the result. The rows [Ld_m, Rd_m] are
        kept, 2 · features · hidden numbers, where the limit allows; otherwise each block computes
        them anew and takes 1 + in / block times as long.
    Accuracy: list, order and values do not depend on `block`: the `top` + 32 largest entries of
        the stream are computed anew in float64, feature by feature. Rounding can decide who is
        listed only where more than 32 others equal the last one within the rounding of the
        products. Moments agree between block sizes to rounding. float32 products put an error
        of the order of 1e-7 · Σ_h |w_h (Ld_m)_h (Rd_n)_h| on what moments and histograms see.

    Args:
        f: the map. The encoder row of an SAE latent is a direction u, its offset a constant of f.
        dictionary: D, (in, features), one feature a column.
        options: an `InteractionOptions`, or its fields:

    Returns: a batch: `result[c]` are the interactions along row c. A row that is not finite, or
        whose interactions are outside float64, is flagged in `status`; the others are not affected.
    Raises: ShapeError if dictionary, directions, bias or edges do not fit; NonFiniteError if one
        holds NaN or infinity; UsageError if f is no map, or an argument not one of the above;
        MemoryLimitError if the block, or even one of a single feature, does not fit.
    Source: arXiv:2410.08417, §5.1 and App. N, which leave out the decoder's bias.
    """
    num_features = check_dictionary(f, dictionary)
    check_finite("dictionary", dictionary)
    rows, precision = options.directions, options.precision
    check_directions(rows, f.sizes.d_out)  # a row that is not finite is flagged
    num = f.sizes.d_out if rows is None else len(rows)
    own, cross = check_options(num_features, options)
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision={precision!r} is not known: use torch.float64 or torch.float32."
        )
    block = None if options.block is None else check_count("block", options.block, minimum=1)
    spares = max(own.size, cross.size) + SPARE
    need = StreamMemory(f.sizes, num_features, num, spares, precision)
    plan = plan_memory(need, block, options.memory_limit, f.device)
    with torch.no_grad():
        f = f.detach().to(torch.float64)
        dictionary = dictionary.detach().to(f.tensor.down.device)
        rows = None if rows is None else rows.detach().to(f.tensor.down)
        factors = FeatureFactors.from_map(f, dictionary, precision, plan.block, plan.keep)
        bias = check_bias(options.bias, f)
        engine = InteractionEngine.from_map(f, rows, bias, factors, plan.block)
        reader = InteractionReader(factors, own, cross, plan.block)
        found = list(read_each(engine, reader, options.progress))
        listed = [torch.stack([pair[kind].values for pair in found]) for kind in (0, 1)]
        totals = engine.totals(*listed)
        gap = reader.nothing(f.tensor.down.device)
        known = zip(found, totals.known.tolist(), strict=True)
        selfs, crosses = zip(*(pair if good else gap for pair, good in known), strict=True)
        return DirectInteractions(
            combined(selfs, torch.stack),
            combined(crosses, torch.stack),
            totals.norm,
            totals.linear,
            totals.constant,
            totals.status,
        )


def read_each(
    engine: InteractionEngine, reader: InteractionReader, progress: Progress | None
) -> Iterator[tuple[Interactions, Interactions]]:
    steps, num = num_blocks(reader.factors.num_features, reader.block), len(engine.units)
    done = count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(done), steps * num)

    for row in range(num):
        if bool(engine.usable[row]):
            yield reader.read_row(engine.weights[row], engine.units[row], engine.squares[row], tick)
            continue
        for _ in range(steps):
            tick()
        yield reader.nothing(engine.units.device)


def check_options(
    num_features: int, options: InteractionOptions
) -> tuple[KindOptions, KindOptions]:
    top, bins = check_count("top", options.top, minimum=1), options.bins
    self_bins = bins if options.self_bins is None else options.self_bins
    pairs = num_features * (num_features - 1) // 2

    def of_kind(kind: Kind, available: int, name: str, given: int | Tensor) -> KindOptions:
        number = check_bins(name, given)
        edges = given.detach().double() if isinstance(given, Tensor) else None
        return KindOptions(kind, min(top, available), number, edges)

    return (
        of_kind("self", num_features, "self_bins", self_bins),
        of_kind("cross", pairs, "bins", bins),
    )


@dataclass(frozen=True, eq=False)
class KindOptions:
    kind: Kind  # "self" or "cross"
    size: int  # how many entries to list
    bins: int  # number of bins of the histogram
    edges: Tensor | None  # (bins + 1,) edges of them in units of S; None to choose them


@dataclass(frozen=True, eq=False)
class InteractionReader:
    """Reads S = unit · S' of one direction, where S' is in the scale of the feature factors."""

    factors: FeatureFactors
    own: KindOptions
    cross: KindOptions
    block: int

    def read_row(
        self, weight: Tensor, unit: Tensor, square: Tensor, tick: Callable[[], None]
    ) -> tuple[Interactions, Interactions]:
        num = self.factors.num_features
        diagonal = self_values(self.factors, weight, self.block)
        own = self._empty(self.own, float(diagonal.abs().max()), unit)
        own = own.added(Chunk(diagonal, lambda positions: positions * (num + 1)))

        off_diagonal = no_negative(square - diagonal.square().sum()) / max(num * (num - 1), 1)
        cross = self._empty(self.cross, RANGE * math.sqrt(off_diagonal), unit)
        for chunks in cross_chunks(self.factors, weight, self.block):
            for chunk in chunks:
                cross = cross.added(chunk)
            tick()
        return (
            self._finished(self.own, own, weight, unit),
            self._finished(self.cross, cross, weight, unit),
        )

    def nothing(self, device: torch.device) -> tuple[Interactions, Interactions]:
        own, cross = (
            unread(options.kind, options.size, options.bins, device)
            for options in (self.own, self.cross)
        )
        return own, cross

    def _empty(self, options: KindOptions, largest: float, unit: Tensor) -> StreamingStatistics:
        """Return empty statistics in the scale of S', whose edges are round in that of S."""
        edges = options.edges
        if edges is None:
            edges = symmetric_edges(largest * float(unit), options.bins, unit.device)
        return StreamingStatistics.empty(options.size + SPARE, edges.to(unit.device) / unit)

    def _finished(
        self, options: KindOptions, statistics: StreamingStatistics, weight: Tensor, unit: Tensor
    ) -> Interactions:
        keys = statistics.top.keys
        first, second = keys // self.factors.num_features, keys % self.factors.num_features
        values = exact_values(self.factors, weight, first, second)
        listed = by_size(values, keys)[: options.size]
        return Interactions(
            options.kind,
            first[listed],
            second[listed],
            values[listed] * unit,
            statistics.sums.moments(unit),
            replace(statistics.histogram, edges=statistics.histogram.edges * unit),
        )


def self_values(factors: FeatureFactors, weight: Tensor, block: int) -> Tensor:
    """Return the diagonal Σ_h w_h (Ld_m)_h (Rd_m)_h, (features,), in O(features · hidden)."""
    hidden = len(weight)

    def diagonal(rows: Tensor) -> Tensor:
        return (rows[:, :hidden] * rows[:, hidden:]).double() @ weight

    parts = blocks(factors.num_features, block)
    return torch.cat([diagonal(factors.rows(part)) for part in parts])


def cross_chunks(factors: FeatureFactors, weight: Tensor, block: int) -> Iterator[Iterator[Chunk]]:
    """Yield every entry above the diagonal once, block by block of the upper triangle."""
    # Math: with P_m = [l, r], S[m, n] = ½ [w∘r, w∘l]_m · [l, r]_n: one matrix product for each
    # block, of inner length 2·hidden.
    num = factors.num_features
    half = (weight / 2).to(factors.precision)
    for rows in blocks(num, block):
        left, right = factors.rows(rows).tensor_split(2, dim=1)
        weighted = torch.cat([right * half, left * half], dim=1)
        for columns in blocks(num, block, start=rows.start):
            product = weighted @ factors.rows(columns).T
            yield strips(product, rows.start, columns.start, num)


def num_blocks(num_features: int, block: int) -> int:
    side = -(-num_features // block)
    return side * (side + 1) // 2


def strips(product: Tensor, top: int, edge: int, num: int) -> Iterator[Chunk]:
    """Yield the entries of a block above the diagonal of the whole, some rows at a time."""
    height, width = product.shape
    for rows in blocks(height, max(1, STRIP // width)):
        values = product[rows].double().flatten()
        above = None
        if top == edge:
            inside = torch.ones_like(product[rows], dtype=torch.bool).triu(1 + rows.start)
            above = inside.flatten().nonzero().squeeze(1)
            values = values[above]
        yield Chunk(values, partial(locate, above, top + rows.start, edge, width, num))


def locate(
    kept: Tensor | None, top: int, edge: int, width: int, num: int, positions: Tensor
) -> Tensor:
    """Return the keys of positions in a strip, or in those of it that were `kept`."""
    flat = positions if kept is None else kept[positions]
    return (flat // width + top) * num + flat % width + edge


@dataclass(frozen=True)
class MemoryPlan:
    """The size of the blocks, and whether (features, 2·hidden) rows are kept."""

    block: int
    keep: bool


@dataclass(frozen=True)
class StreamMemory:
    """The memory that direct interactions take, counted in float64 numbers."""

    sizes: FactorSizes  # of the map
    num_features: int  # columns of the dictionary
    num_directions: int  # output directions
    num_listed: int  # entries listed for each output, spare ones included
    precision: torch.dtype  # dtype of the rows that are kept

    def fixed(self) -> int:
        d_out, hidden, d_in = self.sizes
        factors = 2 * (d_out + 2 * d_in) * hidden + d_out * d_in  # in float64, and scaled
        corner = 7 * d_in**2 + 2 * hidden * d_in  # of the dictionary, and the factors in it
        targets = self.num_directions * (4 * hidden + 2 * d_in + d_out)
        listed = self.num_listed * (12 * hidden + 2 * d_in)
        results = (2 * self.num_directions + 10) * self.num_features
        norms = block_bytes(hidden, 6 * d_in)
        return 8 * (factors + corner + targets + listed + results) + norms

    def blocks(self, block: int) -> int:
        rows = block * (ARRAYS_ROWS * 2 * self.sizes.d_hidden + ARRAYS_COLUMNS * self.sizes.d_in)
        return 8 * (ARRAYS_BLOCK * block**2 + ARRAYS_STRIP * min(STRIP, block**2) + rows)

    def bytes_of_rows(self) -> int:
        return self.num_features * 2 * self.sizes.d_hidden * self.precision.itemsize


def plan_memory(
    need: StreamMemory,
    block: int | None,
    limit: int | str | None = None,
    device: torch.device | None = None,
) -> MemoryPlan:
    """Return the block asked for, or else the largest that fits, by halves from BLOCK."""
    spare = memory_limit(limit, device) - need.fixed()
    chosen = BLOCK if block is None else block
    while block is None and chosen > 1 and need.blocks(chosen) > spare:
        chosen //= 2
    chosen = min(chosen, need.num_features)
    check_memory(
        need.fixed() + need.blocks(chosen),
        f"reading {need.num_features} features of {need.sizes.d_in} inputs along "
        f"{need.num_directions} directions in blocks of {chosen}",
        "read fewer features or directions at a time, or pass a smaller block",
        limit,
        device=device,
    )
    return MemoryPlan(chosen, need.blocks(chosen) + need.bytes_of_rows() <= spare)
