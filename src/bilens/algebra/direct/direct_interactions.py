"""The way in: interactions between the features of a dictionary, along output directions."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import count

import torch
from torch import Tensor

from bilens.algebra.direct.exact_entries import check_dictionary
from bilens.algebra.direct.feature_factors import FeatureFactors
from bilens.algebra.direct.histogram import check_bins
from bilens.algebra.direct.memory_plan import Demand, plan_memory
from bilens.algebra.direct.pieces import num_blocks
from bilens.algebra.direct.reader import SPARE, Reader, Wish, squared_norms_in_features
from bilens.algebra.direct.record import DirectInteractions, Kind, stack, unread
from bilens.algebra.directions import raw_directions
from bilens.algebra.quadratic_form import QuadraticForm
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.status import Status
from bilens.base.checks import check_count, check_dense_tensor, check_finite, check_float_tensor
from bilens.base.errors import NonFiniteError, ShapeError, UsageError

Progress = Callable[[int, int], None]
PRECISIONS = (torch.float64, torch.float32)


def direct_interactions(
    f: QuadraticMap,
    dictionary: Tensor,
    directions: Tensor | None = None,
    *,
    bias: Tensor | None = None,
    top: int = 20,
    bins: int | Tensor = 100,
    self_bins: int | Tensor | None = None,
    block: int | None = None,
    precision: torch.dtype = torch.float64,
    progress: Progress | None = None,
    memory_limit: int | str | None = None,
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
        directions: (num, out), one output direction a row; None reads every output as it is.
        bias: b, (in,), of the decoder; None is zero.
        top: how many entries to list of each kind; fewer where there are fewer.
        bins: histogram of the cross-interactions: how many bins, or their edges in units of S. A
            number spans ±8 root mean squares (known beforehand, from the factors), rounded up to
            two digits; at most 1/64 lie outside (Chebyshev), counted in `below` and `above`.
        self_bins: the same for the self-interactions; None for what `bins` is. A number spans
            ± the largest one, rounded up to two digits, so that none lies outside.
        block: features a block; None for 1024, or fewer where the memory limit is near.
        precision: dtype of the products, float64 or float32.
        progress: called with the number of blocks done, and of all blocks.
        memory_limit: bytes, or a text such as "4GiB", that the work may take beside the map and
            the dictionary; None for $BILENS_MEMORY_LIMIT or 75 % of the memory at hand.

    Returns:
        A batch: `result[c]` are the interactions along row c. A row that is not finite, or whose
        interactions are outside float64, is flagged in `status`; the others are not affected.

    Raises:
        ShapeError: If dictionary, directions, bias or edges do not fit.
        NonFiniteError: If dictionary, bias or edges hold NaN or infinity.
        UsageError: If f is no map, or top, bins, block or precision is not one of the above.
        MemoryLimitError: If the block, or even one of a single feature, does not fit.

    Source: arXiv:2410.08417, §5.1 and App. N, which leave out the decoder's bias.
    """
    num_features = check_dictionary(f, dictionary)
    check_finite("dictionary", dictionary)
    rows = check_directions(directions, f.sizes.d_out)
    own, cross = check_wishes(num_features, top, bins, bins if self_bins is None else self_bins)
    block = check_choices(block, precision)
    listed = max(own.size, cross.size) + SPARE
    demand = Demand(f.sizes, num_features, len(rows), listed, precision)
    plan = plan_memory(demand, block, memory_limit)
    with torch.no_grad():
        f = f.detach().to(torch.float64)
        dictionary = dictionary.detach().to(f.tensor.down.device)
        bias = check_bias(bias, f)
        factors = FeatureFactors.of(f, dictionary, precision, plan.block, plan.keep)
        reader = Reader(factors, own, cross, plan.block)
        return stack(list(_read_all(f, rows, bias, reader, progress)))


def _read_all(
    f: QuadraticMap,
    rows: Tensor,
    bias: Tensor,
    reader: Reader,
    progress: Progress | None,
) -> Iterator[DirectInteractions]:
    """Yield the interactions along each row, one after the other."""
    targets = [_target(f, row, reader.factors) for row in rows]
    masses = squared_norms_in_features(
        reader.factors, torch.stack([target.weight for target in targets])
    )
    steps = num_blocks(reader.factors.num_features, reader.block)
    done = count(1)

    def tick() -> None:
        if progress is not None:
            progress(next(done), steps * len(rows))

    for target, mass in zip(targets, masses, strict=True):
        if target.usable:
            yield _read(target, mass, bias, reader, tick)
            continue
        for _ in range(steps):
            tick()
        yield _failed(reader)


@dataclass(frozen=True, eq=False)
class Target:
    """An output direction in the scale of the feature factors; `usable` unless it is flagged."""

    form: QuadraticForm
    weight: Tensor
    unit: Tensor
    usable: bool


def _target(f: QuadraticMap, row: Tensor, factors: FeatureFactors) -> Target:
    try:
        form = f.form(row)
    except NonFiniteError:  # the row itself, or its product with the factors
        form = f.form(torch.zeros_like(row))
        return Target(form, *factors.balanced(form.matrix.weight), usable=False)
    weight, unit = factors.balanced(form.matrix.weight)
    return Target(form, weight, unit, usable=0 < float(unit) < math.inf)


def _read(
    target: Target,
    mass: Tensor,
    bias: Tensor,
    reader: Reader,
    tick: Callable[[], None],
) -> DirectInteractions:
    own, cross = reader.read(target.weight, target.unit, mass, tick)
    result = DirectInteractions(
        own,
        cross,
        norm=mass.sqrt() * target.unit,
        linear=reader.factors.along(
            target.form.linear + 2 * target.form.matvec(bias), reader.block
        ),
        constant=target.form(bias),
        status=Status.OK,
    )
    numbers = (own.values, cross.values, result.norm, result.linear, result.constant)
    if all(bool(torch.isfinite(part).all()) for part in numbers):
        return result
    return _failed(reader)


def _failed(reader: Reader) -> DirectInteractions:
    gap = reader.factors.left.new_full((reader.factors.num_features,), torch.nan)
    own, cross = (
        unread(wish.kind, wish.size, wish.bins, gap.device) for wish in (reader.own, reader.cross)
    )
    return DirectInteractions(own, cross, gap[0], gap, gap[0], Status.NOT_FINITE)


def check_directions(directions: Tensor | None, d_out: int) -> Tensor:
    """Return the output directions as float64 rows; a row that is not finite passes.

    Raises:
        ShapeError: If there are none, or one does not have one entry for each output.
    """
    if directions is None:
        return raw_directions(d_out)
    num, length = check_dense_tensor("directions", directions, num_axes=2)
    if length != d_out or num == 0:
        raise ShapeError(
            f"directions has shape {(num, length)}; expected (num, {d_out}), one output direction "
            "a row."
        )
    return directions.detach().double()


def check_bias(bias: Tensor | None, f: QuadraticMap) -> Tensor:
    """Return the decoder's bias in the dtype of the map; zeros for None.

    Raises:
        ShapeError: If it does not have one entry for each input.
        NonFiniteError: If it holds NaN or infinity.
    """
    d_in = f.sizes.d_in
    if bias is None:
        return f.tensor.down.new_zeros(d_in)
    (length,) = check_float_tensor("bias", bias, num_axes=1)
    if length != d_in:
        raise ShapeError(f"bias has {length} entries; the map reads {d_in} inputs: pass ({d_in},).")
    return bias.detach().to(f.tensor.down)


def check_wishes(
    num_features: int, top: int, bins: int | Tensor, self_bins: int | Tensor
) -> tuple[Wish, Wish]:
    """Return what to keep of self- and of cross-interactions.

    Raises:
        UsageError: If top or a number of bins is no positive integer, or edges do not rise.
        ShapeError: If edges are no vector of at least two real floating-point numbers.
        NonFiniteError: If an edge is NaN or infinite.
    """
    top = check_count("top", top, minimum=1)
    pairs = num_features * (num_features - 1) // 2

    def wish(kind: Kind, available: int, name: str, given: int | Tensor) -> Wish:
        number = check_bins(name, given)
        edges = given.detach().double() if isinstance(given, Tensor) else None
        return Wish(kind, min(top, available), number, edges)

    return wish("self", num_features, "self_bins", self_bins), wish("cross", pairs, "bins", bins)


def check_choices(block: int | None, precision: torch.dtype) -> int | None:
    """Return the block, after refusing one, or a precision, that is not among the choices."""
    if precision not in PRECISIONS:
        raise UsageError(
            f"precision={precision!r} is not known: use torch.float64 or torch.float32."
        )
    return None if block is None else check_count("block", block, minimum=1)
