"""Proven bounds on the effect of one input on an output, and of ignoring some inputs."""

from collections.abc import Sequence
from itertools import product

import torch
from torch import Tensor

from bilens.algebra.bilinear_tensor import BilinearTensor
from bilens.algebra.gaussian import GaussianMoments, gaussian_moments
from bilens.algebra.quadratic_form import checked_vector
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import UsageError
from bilens.base.memory import check_memory
from bilens.base.notebook import frozen_result
from bilens.certify.input_use import EPS, InputRows, checked_indices, checked_map, linear_part
from bilens.certify.inputs import checked_number
from bilens.certify.trust_region import solve_trust_region

Box = tuple[Tensor, Tensor]


@frozen_result()
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

    Raises: UsageError if f is no map, there is no such input or output, or low is above high;
        ShapeError if low or high does not fit; NonFiniteError if one holds NaN or infinity.
    """
    d_out, _, d_in = checked_map(f).sizes
    (index,) = checked_indices("i", [i], d_in)
    (output,) = checked_indices("output", [output], d_out)
    low, high = checked_box(box, d_in)
    rows = InputRows.from_map(f)
    mine = InputRows(rows.down[[output]], rows.left, rows.right)
    row, terms = mine.form_rows([index])[0, 0], mine.terms([index])[0, 0]
    slope = float(linear_part(f)[output, index])
    others = 2 * row.index_fill(0, torch.tensor([index], device=row.device), 0.0)
    corners = (
        torch.where(others > 0, low, high),  # the least slope
        torch.where(others > 0, high, low),
    )
    found = [
        extremes(
            float(row[index]), slope + float(others @ x), float(low[index]), float(high[index])
        )
        for x in corners
    ]
    (reached, top, bottom), corner = max(zip(found, corners, strict=True), key=lambda pair: pair[0])
    farthest = torch.maximum(low.abs(), high.abs())
    off = EPS * (f.sizes.d_hidden + d_in + 16) * (2 * terms @ farthest + abs(slope))
    upper, lower = corner.clone(), corner.clone()
    upper[index], lower[index] = top, bottom
    return InfluenceRange(
        reached + float((high - low)[index] * 2 * off),
        reached,
        upper,
        lower,
        index,
        output,
        f"every input anywhere in the box, one apart from the other, in the {f.basis} basis",
    )


def extremes(curvature: float, slope: float, low: float, high: float) -> tuple[float, float, float]:
    """Return max − min of curvature t² + slope t over [low, high], and where both are."""
    points = [low, high]
    if curvature != 0 and low < -slope / (2 * curvature) < high:
        points.append(-slope / (2 * curvature))
    return max(
        ((t - other) * (curvature * (t + other) + slope), t, other)
        for t, other in product(points, repeat=2)
    )


def checked_box(box: Box, d_in: int) -> Box:
    if not isinstance(box, (tuple, list)) or len(box) != 2:
        raise UsageError(f"box is a {type(box).__name__}; expected a pair (low, high) of vectors.")
    low, high = checked_vector("low", box[0], d_in), checked_vector("high", box[1], d_in)
    if bool((low > high).any()):
        raise UsageError(f"low is above high for input {int((low > high).int().argmax())}.")
    return low, high


@frozen_result()
class RemovedInputs:
    """A map that ignores some inputs, and how far its outputs are from those of the whole map.

    Attributes:
        quadratic_map: x ↦ f(x with the inputs set to zero): the nearest one, in ‖Q_c − Q′_c‖_F
            and in ‖b_c − b′_c‖ for every output.
        bound: (out,), |f_c(x) − f′_c(x)| is at most this for ‖x‖ ≤ radius, rounding included.
        reached: (out,), what it is at `example`.
        example: (out, in), ‖example‖ ≤ radius.
        norm: (out,), ‖Q_c − Q′_c‖_F.
        moments: mean and variance of f_c(x) − f′_c(x) under the Gaussian given; None without one.
        inputs: those removed.
        radius: of the ball.
        assumption: what the statement is about.
    """

    quadratic_map: QuadraticMap
    bound: Tensor
    reached: Tensor
    example: Tensor
    norm: Tensor
    moments: GaussianMoments | None
    inputs: tuple[int, ...]
    radius: float
    assumption: str


def remove_inputs(
    f: QuadraticMap,
    inputs: Sequence[int],
    radius: float,
    *,
    mean: Tensor | None = None,
    covariance: Tensor | None = None,
) -> RemovedInputs:
    """Return the nearest map that ignores some inputs, with the proven damage.

    Math: rows and columns of the inputs are zero in Q′, and so are their entries of b′. The change
        xᵀEx + b_S·x lives on the s inputs and on the rows of E, at most 2s directions; its largest
        size in the ball is found by a trust-region solution of that size, whose dual bound is the
        proof.
    Cost: O(out · s · in · (hidden + s)) time, O(out · s · (hidden + in)) memory, and those of
        `gaussian_moments` if asked for.

    Args:
        f: the map.
        inputs: which ones, s different indices.
        radius: of the ball ‖x‖ ≤ radius, in units of the input.
        mean: μ of a Gaussian for the moments, (in,); with `covariance` only.
        covariance: Σ, (in, in); with `mean` only.

    Raises: UsageError if f is no map, an input or the radius is not one, or Σ is no covariance;
        ShapeError if μ or Σ does not fit; NonFiniteError if one is not finite, or a weight is
        beyond float64; MemoryLimitError if the rows of the inputs do not fit.
    """
    d_in = checked_map(f).sizes.d_in
    indices = checked_indices("inputs", inputs, d_in)
    radius = checked_number("radius", radius)
    if (mean is None) != (covariance is None):
        raise UsageError("pass mean and covariance together, or none of them.")
    f = f.detach()
    check_memory(
        8 * 8 * f.sizes.d_out * len(indices) * (f.sizes.d_hidden + d_in),
        f"removing {len(indices)} inputs from {f.sizes.d_out} outputs",
        "remove fewer inputs, or take some outputs with compose_output",
        device=f.device,
    )
    bound, point, norm = proven_damage(f, indices, radius)
    moments, change = None, change_of(f, indices).to(torch.float64)
    if mean is not None and covariance is not None:
        moments = gaussian_moments(change, mean, covariance)
    return RemovedInputs(
        without(f, indices),
        bound,
        change(point).diagonal().abs(),
        point,
        norm,
        moments,
        tuple(indices),
        radius,
        f"‖x‖ ≤ radius in the {f.basis} basis, exact arithmetic in both maps",
    )


def proven_damage(
    f: QuadraticMap, indices: list[int], radius: float
) -> tuple[Tensor, Tensor, Tensor]:
    """Return the largest change by removing inputs, its point in the ball, and the change's norm.

    The bound holds for all that rounding can do to it.
    """
    reader = InputRows.from_map(f)
    rows, linear = reader.form_rows(indices), linear_part(f)[:, indices]
    norm = (2 * rows.square().sum(dim=(1, 2)) - rows[..., indices].square().sum(dim=(1, 2))).sqrt()
    axes, small = on_few_axes(rows, indices)
    bound, point = largest_change(small, linear, radius)
    point = (point[:, None] @ axes)[:, 0]
    point = point * (radius / point.norm(dim=1).clamp(min=radius))[:, None] if radius else 0 * point
    off = 2 * reader.rounding()[:, indices].norm(dim=1) + 1000 * EPS * norm
    off = radius * off * radius + 4 * EPS * f.sizes.d_in * radius * linear.norm(dim=1)
    return bound + off, point, norm


def on_few_axes(rows: Tensor, indices: list[int]) -> tuple[Tensor, Tensor]:
    """Return orthonormal rows that hold all of E_c, and E_c in their coordinates."""
    # Math: E = [[Q_SS, T], [Tᵀ, 0]]; with T = U σ V (thin) it is [[Q_SS, Uσ], [σUᵀ, 0]] on e_S, V.
    num, d_in = len(indices), rows.shape[2]
    own = rows[..., indices]
    rest = rows.clone()
    rest[..., indices] = 0.0
    u, sizes, v = torch.linalg.svd(rest, full_matrices=False)
    v[..., indices] = 0.0  # what belongs to a size of zero is anything
    own_axes = torch.eye(d_in).to(rows)[indices].expand(len(rows), num, d_in)
    cross = u * sizes[:, None]
    small = rows.new_zeros(len(rows), num + len(sizes[0]), num + len(sizes[0]))
    small[:, :num, :num], small[:, :num, num:], small[:, num:, :num] = own, cross, cross.mT
    return torch.cat([own_axes, v], dim=1), small


def largest_change(small: Tensor, linear: Tensor, radius: float) -> tuple[Tensor, Tensor]:
    """Return the largest |xᵀEx + b·x| in a ball: (out,) proven bound, (out, k) point."""
    values, columns = torch.linalg.eigh((small + small.mT) / 2)
    turned = (linear[:, None] @ columns[:, : linear.shape[1]])[:, 0]
    balls = values.new_full((2 * len(values),), radius)
    both = torch.cat([values, -values]), torch.cat([turned, -turned])  # least, and largest
    found = solve_trust_region(*both, balls)
    bounds, points = -found.lower.view(2, -1), found.point.view(2, *values.shape)
    better = (-found.value).view(2, -1).argmax(dim=0)
    point = points[better, torch.arange(len(values))]
    return bounds.amax(dim=0), (columns @ point[..., None])[..., 0]


def without(f: QuadraticMap, indices: list[int]) -> QuadraticMap:
    kept = torch.ones_like(f.tensor.left[0])
    kept[indices] = 0.0
    tensor = BilinearTensor(f.tensor.down, f.tensor.left * kept, f.tensor.right * kept)
    linear = None if f.linear is None else f.linear * kept
    return QuadraticMap(tensor, linear, f.constant, f.basis)


def change_of(f: QuadraticMap, indices: list[int]) -> QuadraticMap:
    """Return f − `without`, in factors that do not cancel."""
    # Math: with l = l_S + l_K for removed and kept inputs, l rᵀ − l_K r_Kᵀ = l_S rᵀ + l_K r_Sᵀ.
    kept = without(f, indices)
    short = kept.tensor
    tensor = BilinearTensor(
        torch.cat([f.tensor.down, f.tensor.down], dim=1),
        torch.cat([f.tensor.left - short.left, short.left]),
        torch.cat([f.tensor.right, f.tensor.right - short.right]),
    )
    linear = None if f.linear is None or kept.linear is None else f.linear - kept.linear
    return QuadraticMap(tensor, linear, None, f.basis)
