"""Exact Euclidean radii: how far an input can move before another output takes over."""

from collections.abc import Iterable, Iterator, Sequence
from itertools import combinations

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import UsageError
from bilens.base.frame import frame
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result
from bilens.certify.contrast import Contrast, PairSpectra, contrast_of
from bilens.certify.inputs import RadiusStatus, Samples, crossed, margins, samples_of, statuses
from bilens.certify.quadric_distance import QuadricDistance, distance_to_quadric
from bilens.certify.trust_region import EPS


@frozen_result()
class L2Radius:
    """How far each input can move before the map may give it to another output.

    The radius is proven for the map with these weights in exact arithmetic, whatever the dtype of
    the weights: rounding is counted against it. Lengths are in the units of the input.

    Attributes:
        radius: (rows,), no input at a smaller distance is lost to any rival; 0 where the input
            itself is lost or tied, inf where nothing is lost, NaN where the status is NOT_FINITE.
        rival: (rows,), the largest other output at the example; −1 where there is none.
        example: (rows, in), an input that is lost, evaluated in float64; x itself where that is
            lost, NaN where there is none.
        distance: (rows,), ‖example − x‖; inf where there is none.
        per_rival: (rows, out), the radius against each output alone, a proven lower bound, which
            may be finite for an output that never wins; inf for the label.
        margin: (rows,), f_label − the largest other output, at x.
        label: (rows,).
        status: one for each input.
    """

    radius: Tensor
    rival: Tensor
    example: Tensor
    distance: Tensor
    per_rival: Tensor
    margin: Tensor
    label: Tensor
    status: tuple[RadiusStatus, ...]
    to_frame = frame("radius", "row")

    @property
    def gap(self) -> Tensor:
        """(distance − radius) / distance, (rows,): 0 is exact, 1 says nothing, NaN not finite."""
        gap = torch.where(self.distance.isinf(), 1.0, 1 - self.radius / self.distance)
        return torch.where(self.radius == self.distance, 0.0, gap)


def certified_accuracy(record: L2Radius, radii: Tensor | Sequence[float]) -> Tensor:
    """Return the share of inputs that no change of length up to each radius can flip, (num,).

    Inputs that are misclassified, tied or not finite count as not certified.

    Raises: UsageError if there is no input, or a radius is negative or NaN.
    """
    check_type("record", record, L2Radius, "pass what l2_radius returned")
    if len(record.radius) == 0:
        raise UsageError("the record holds no input: an accuracy needs at least one.")
    levels = torch.as_tensor(radii, dtype=torch.float64, device=record.radius.device).reshape(-1)
    if not bool((levels >= 0).all()):
        raise UsageError(f"radii must not be negative or NaN, got {radii!r}.")
    return (record.radius > levels[:, None]).double().mean(dim=1)


def projected_margin(
    f: QuadraticMap, record: L2Radius, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Return the margin of each example after it is clamped to the box [low, high]ⁿ, (rows,).

    The radius ignores the box and is a lower bound inside it. Where this margin, f_label − the
    largest other output, is negative, the clamped example is a counterexample in the box; where
    it is positive, the box helped. NaN where there is no example.

    Raises: UsageError if low is not below high.
    """
    check_type("record", record, L2Radius, "pass what l2_radius returned")
    if not low < high:
        raise UsageError(f"the box needs low < high, got {low} and {high}.")
    f = f.detach().to(torch.float64)
    return margins(f, record.example.clamp(low, high), record.label).amin(dim=1)


CHUNK = 2**18  # numbers in one array of a chunk of rows: several of them stay in the cache


def l2_radius(
    f: QuadraticMap,
    x: Tensor,
    label: Tensor | Sequence[int],
    spectra: PairSpectra | None = None,
    *,
    memory_limit: int | str | None = None,
) -> L2Radius:
    """Return the distance of each input to the nearest one that the map gives to another output.

    Math: the margin against rival j is m(δ) = m(0) + g·δ + δᵀAδ, with A = Q_label − Q_j and
        g = 2Ax + b_label − b_j. The distance to m = 0 is `distance_to_quadric` in the eigenbasis
        of A; the radius is the least of the rivals' lower bounds. See docs/guarantees.md.
    Cost: one eigendecomposition for each pair of outputs that occurs, unless `spectra` holds it;
        then about 2 · in² + 800 · in operations for each input and rival. Memory beside the
        spectrum of one pair: O(rows · (in + hidden + out)).

    Args:
        f: the map, any floating dtype; it is read in float64.
        x: (rows, in), any floating dtype. Rows that are not finite are flagged.
        label: (rows,), the output that should win.
        spectra: of the same map, from `prepare(f)`; None decomposes the pairs that occur.
        memory_limit: bytes, or "4GiB"; None for $BILENS_MEMORY_LIMIT or 75 % of the memory.

    Returns: the radius of each input with an example just outside, and a status.
    Raises: ShapeError if x or label has another shape or dtype; UsageError if a label is not an
        output, the map has one output, or `spectra` is of another map; NumericalError if a pair
        cannot be decomposed to the tolerance; MemoryLimitError if the work would not fit.
    Source: reduction to a secular equation: J. Moré, Optim. Methods Softw. 2 (1993).
    """
    check_type("f", f, QuadraticMap, "pass the map of a module, module.quadratic_map()")
    exact = checked_map(f, spectra)
    outputs, hidden, width = f.sizes
    rows = len(x) if isinstance(x, Tensor) and x.ndim else 0
    check_memory(
        8 * (rows * (6 * width + 6 * hidden + 8 * outputs) + 16 * CHUNK),
        f"certificates of {rows} inputs of width {width}",
        "pass fewer inputs at a time",
        memory_limit,
        device=f.device,
    )
    samples = samples_of(exact, x, label)
    per_rival = torch.full_like(samples.margins, torch.inf)
    nearest = torch.full_like(samples.lengths, torch.inf)
    direction = torch.full_like(samples.x, torch.nan)
    contrasts = contrasts_of(exact, samples, spectra, memory_limit)
    together = spectra is not None  # else each pair is let go of before the next
    for group in groups(contrasts, samples, together):
        found = against(group, samples)
        start = 0
        for contrast, chunk in group:
            part = slice(start, start + len(chunk))
            start = part.stop
            per_rival[chunk, contrast.second] = found.radius[part]
            better = found.distance[part] < nearest[chunk]
            closer = chunk[better]
            nearest[closer] = found.distance[part][better]
            direction[closer] = found.point[part][better] @ contrast.vectors
    return record_of(exact, samples, per_rival, direction)


def checked_map(f: QuadraticMap, spectra: PairSpectra | None) -> QuadraticMap:
    exact = f.detach().to(torch.float64)
    if spectra is None:
        return exact
    check_type("spectra", spectra, PairSpectra, "pass what certify.prepare(f) returned")
    ours, theirs = ((*one._factors(), *one._affine()) for one in (exact, spectra.f))
    if not all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True)):
        raise UsageError("`spectra` was prepared for another map: call certify.prepare(f).")
    return exact


def contrasts_of(
    f: QuadraticMap, samples: Samples, spectra: PairSpectra | None, memory_limit: int | str | None
) -> Iterator[Contrast]:
    """Yield each pair of outputs that occurs, label first; one decomposition for both orders."""
    present = set(samples.label[samples.usable].tolist())
    for first, second in combinations(range(f.sizes.d_out), 2):
        if first not in present and second not in present:
            continue
        if spectra is None:
            contrast = contrast_of(f, first, second, memory_limit)
        else:
            contrast = spectra.contrast(first, second)
        yield contrast
        yield contrast.turned()


def groups(
    contrasts: Iterable[Contrast], samples: Samples, together: bool
) -> Iterator[list[tuple[Contrast, Tensor]]]:
    """Yield contrasts with the inputs they concern, as many rows together as stay in the cache."""
    group: list[tuple[Contrast, Tensor]] = []
    rows = 0
    for contrast in contrasts:
        at = ((samples.label == contrast.first) & samples.usable).nonzero()[:, 0]
        if len(at) == 0:
            continue
        room = max(CHUNK // len(contrast.values), 1)
        for chunk in torch.split(at, room):
            alike = bool(group) and len(group[0][0].values) == len(contrast.values)
            if group and not (together and alike and rows + len(chunk) <= room):
                yield group
                group, rows = [], 0
            group.append((contrast, chunk))
            rows += len(chunk)
    if group:
        yield group


def against(group: list[tuple[Contrast, Tensor]], samples: Samples) -> QuadricDistance:
    """Return the distances of some inputs to where a rival takes over, one pair after the other."""
    lengths = [samples.lengths[chunk] for _, chunk in group]
    return distance_to_quadric(
        torch.cat([c.values.expand(len(chunk), -1) for c, chunk in group]),
        torch.cat([c.gradient(samples.x[chunk]) for c, chunk in group]),
        torch.cat([samples.margins[chunk, c.second] for c, chunk in group]),
        value_error=torch.cat(
            [
                torch.full_like(size, c.value_error)
                for (c, _), size in zip(group, lengths, strict=True)
            ]
        ),
        linear_error=torch.cat(
            [c.gradient_error(size) for (c, _), size in zip(group, lengths, strict=True)]
        ),
        constant_error=torch.cat([samples.errors[chunk, c.second] for c, chunk in group]),
    )


def record_of(f: QuadraticMap, samples: Samples, per_rival: Tensor, direction: Tensor) -> L2Radius:
    """Return the record: the least radius of the rivals, and examples that the map itself loses."""
    margin, radius = samples.margins.amin(dim=1), per_rival.amin(dim=1)
    stays, bad = samples.stays, ~samples.usable
    direction = direction.masked_fill(stays[:, None], torch.nan)
    example = crossed(f, samples.x, direction, samples.label)
    example = torch.where(stays[:, None], samples.x, example)
    distance = (example - samples.x).norm(dim=1) * (1 + (f.sizes.d_in + 4) * EPS)
    distance = distance.nan_to_num(torch.inf, posinf=torch.inf)
    # a bound may be finite against an output that never wins: only an example says who does
    rival = margins(f, example, samples.label).argmin(dim=1).masked_fill(distance.isinf(), -1)
    radius = radius.masked_fill(stays, 0.0)
    return L2Radius(
        radius.masked_fill(bad, torch.nan),
        rival.masked_fill(bad, -1),
        example.masked_fill(bad[:, None], torch.nan),
        distance.masked_fill(bad, torch.inf),
        per_rival.masked_fill(bad[:, None], torch.nan),
        margin.masked_fill(bad, torch.nan),
        samples.label,
        statuses(samples, radius, distance),
    )
