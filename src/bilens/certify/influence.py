"""How far one input can move an output, with the others anywhere in a box: exactly."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import product

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.certify.arguments import checked_vector
from bilens.certify.input_rows import EPS, InputRows, checked_map, checked_places, linear_part

Box = tuple[Tensor, Tensor]


@dataclass(frozen=True, eq=False)
class InfluenceRange:
    """max |f(x with x_i = a) − f(x with x_i = a′)| over a box, reached by two of its points.

    Attributes:
        bound: no change is larger, rounding included.
        reached: f(upper) − f(lower), the largest change, up to rounding.
        upper: (in,), a point of the box.
        lower: (in,), the same but for input i.
        input: i.
        output: which output.
        assumption: what the statement is about.
    """

    bound: float
    reached: float
    upper: Tensor
    lower: Tensor
    input: int
    output: int
    assumption: str


def influence_range(f: QuadraticMap, i: int, box: Box, output: int) -> InfluenceRange:
    """Return how much one input can change one output, anywhere in a box, exactly.

    With the others fixed (low = high there) it is the range of the output over input i.

    Math: as a function of x_i = t the output is q_ii t² + s t + a constant, with
        s = b_i + 2 Σ_{j≠i} q_ij x_j in an interval whose ends are corners of the box. The range of
        it over t is convex in s, so that an end of the interval gives the largest; there t is an
        end of its own interval or the vertex −s / (2 q_ii).
    Cost: O(hidden · in) after a copy of the factors.

    Args:
        f: the map.
        i: which input.
        box: low and high, (in,) each: x_j may be anywhere between low_j and high_j.
        output: which output; a contrast is an output of `f.compose_output`.

    Raises:
        UsageError: If f is no map, there is no such input or output, or low is above high.
        ShapeError: If low or high does not fit.
        NonFiniteError: If one holds NaN or infinity.
    """
    d_out, _, d_in = checked_map(f).sizes
    (place,) = checked_places("i", [i], d_in)
    (output,) = checked_places("output", [output], d_out)
    low, high = checked_box(box, d_in)
    rows = InputRows.of(f)
    mine = InputRows(rows.down[[output]], rows.left, rows.right)
    row, terms = mine.read([place])[0, 0], mine.terms([place])[0, 0]
    slope = float(linear_part(f)[output, place])
    others = 2 * row.index_fill(0, torch.tensor([place]), 0.0)
    corners = (
        torch.where(others > 0, low, high),  # the least slope
        torch.where(others > 0, high, low),
    )
    found = [
        extremes(
            float(row[place]), slope + float(others @ x), float(low[place]), float(high[place])
        )
        for x in corners
    ]
    (reached, top, bottom), corner = max(zip(found, corners, strict=True), key=lambda pair: pair[0])
    farthest = torch.maximum(low.abs(), high.abs())
    off = EPS * (f.sizes.d_hidden + d_in + 16) * (2 * terms @ farthest + abs(slope))
    upper, lower = corner.clone(), corner.clone()
    upper[place], lower[place] = top, bottom
    return InfluenceRange(
        reached + float((high - low)[place] * 2 * off),
        reached,
        upper,
        lower,
        place,
        output,
        f"every input anywhere in the box, one apart from the other, in the {f.basis} basis",
    )


def extremes(curvature: float, slope: float, low: float, high: float) -> tuple[float, float, float]:
    """Return max − min of curvature t² + slope t over [low, high], and where both are.

    Every two points are compared by their difference (t − t′) (curvature (t + t′) + slope), which
    errs by the length of the interval; the values themselves may be huge beside it and cancel.
    """
    points = [low, high]
    if curvature != 0 and low < -slope / (2 * curvature) < high:
        points.append(-slope / (2 * curvature))
    return max(
        ((t - other) * (curvature * (t + other) + slope), t, other)
        for t, other in product(points, repeat=2)
    )


def checked_box(box: Box, d_in: int) -> Box:
    """Return low and high in float64.

    Raises:
        UsageError: If it is no pair, or low is above high somewhere.
        ShapeError: If one does not fit.
        NonFiniteError: If one holds NaN or infinity.
    """
    if not isinstance(box, (tuple, list)) or len(box) != 2:
        raise UsageError(f"box is a {type(box).__name__}; expected a pair (low, high) of vectors.")
    low, high = checked_vector("low", box[0], d_in), checked_vector("high", box[1], d_in)
    if bool((low > high).any()):
        raise UsageError(f"low is above high for input {int((low > high).int().argmax())}.")
    return low, high
