"""Checked inputs and margins, with their rounding, that certificates of inputs start from."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from enum import Enum
from numbers import Real

import torch
from torch import Tensor

from bilens.algebra.quadratic_form import check_rows
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapes import check_shape
from bilens.base.errors import ShapeError, UsageError
from bilens.certify.trust_region import EPS


def checked_number(name: str, value: object) -> float:
    """Return a finite number of at least 0, from a number or a tensor that holds one."""
    if isinstance(value, Tensor) and value.numel() == 1:
        value = value.item()
    number = math.nan
    if not isinstance(value, bool) and isinstance(value, Real):
        number = float(value)
    if not 0 <= number < math.inf:
        raise UsageError(f"{name} must be a finite number of at least 0, got {value!r}.")
    return number


def checked_inputs(x: Tensor, d_in: int) -> Tensor:
    """Return finite (batch, in) inputs as float64; the conversion is exact."""
    check_rows(x, d_in)
    return x.detach().to(torch.float64)


OVERSHOOTS = (1e-13, 1e-11, 1e-9, 1e-8)  # beyond the root, until the outputs themselves say so


def margins(f: QuadraticMap, x: Tensor, label: Tensor) -> Tensor:
    """F_label(x) − f_j(x) for every output j, (rows, in) → (rows, out); inf for the label."""
    y = f(x)
    return (y.gather(1, label[:, None]) - y).scatter(1, label[:, None], torch.inf)


def crossing(f: QuadraticMap, x: Tensor, direction: Tensor, label: Tensor) -> Tensor:
    """Return the smallest t > 0 at which an output overtakes the label's, at x + t·direction."""
    # Math: each margin is m + t·slope + t²·bend; 2m / (√(slope² − 4·m·bend) − slope) is its first
    # positive root, where there is one.
    down, left, right = f.tensor.down, f.tensor.left, f.tensor.right
    at_left, at_right = x @ left.T, x @ right.T
    by_left, by_right = direction @ left.T, direction @ right.T
    slope = (at_left * by_right + by_left * at_right) @ down.T
    if f.linear is not None:
        slope = slope + direction @ f.linear.T
    bend = (by_left * by_right) @ down.T
    own = label[:, None]
    slope, bend = slope.gather(1, own) - slope, bend.gather(1, own) - bend
    margin = margins(f, x, label)
    t = 2 * margin / ((slope.square() - 4 * margin * bend).sqrt() - slope)
    t = torch.where(t > 0, t, torch.inf).scatter(1, own, torch.inf)  # NaN is not above 0
    return t.amin(dim=1)


def crossed(f: QuadraticMap, x: Tensor, direction: Tensor, label: Tensor) -> Tensor:
    """X + t·direction just beyond the crossing, where the label has lost; NaN where none is."""
    t = crossing(f, x, direction, label)
    found = torch.full_like(x, torch.nan)
    for push in OVERSHOOTS:
        rows = (t.isfinite() & found[:, 0].isnan()).nonzero()[:, 0]
        if len(rows) == 0:
            break
        point = x[rows] + (t[rows] * (1 + push))[:, None] * direction[rows]
        lost = (margins(f, point, label[rows]) < 0).any(dim=1)
        found[rows[lost]] = point[lost]
    return found


@dataclass(frozen=True, eq=False)
class Samples:
    """Inputs with their labels and margins, in float64."""

    x: Tensor  # (rows, in); rows that are not finite hold zeros
    label: Tensor  # (rows,), the output that should win
    usable: Tensor  # (rows,), False where the input or an output of the map is not finite
    margins: Tensor  # (rows, out), f_label − f_j; inf for the label itself
    errors: Tensor  # (rows, out), what the rounding of the margins is at most
    lengths: Tensor  # (rows,), ‖x‖, rounded up

    @property
    def lost(self) -> Tensor:
        """(rows,), another output is certainly larger at x."""
        return self.usable & (self.margins < -self.errors).any(dim=1)

    @property
    def stays(self) -> Tensor:
        """(rows,), lost or tied: the label does not certainly win at x."""
        return self.usable & (self.margins <= self.errors).any(dim=1)


def samples_of(f: QuadraticMap, x: Tensor, label: Tensor | Sequence[int]) -> Samples:
    """Return checked inputs of a float64 map; a row that is not finite is flagged, not refused."""
    outputs, _, width = f.sizes
    shape = check_shape("x", x, ("rows", width), advice="one input a row", finite=False)
    if outputs < 2:
        raise UsageError("the map has one output: a certificate needs a rival.")
    label = checked_labels(label, shape[0], outputs).to(x.device)
    x = x.detach().double()
    finite = x.isfinite().all(dim=1)
    x = torch.where(finite[:, None], x, 0.0)
    lengths = lengths_of(x) * (1 + (width + 4) * EPS)
    found = margins(f, x, label)
    errors = rounding(f, x, lengths)
    errors = errors + errors.gather(1, label[:, None])
    own = torch.zeros_like(found, dtype=torch.bool).scatter(1, label[:, None], True)
    usable = finite & ((found.isfinite() & errors.isfinite()) | own).all(dim=1)
    found = torch.where(usable[:, None] | own, found, 1.0)
    return Samples(x, label, usable, found, errors.masked_fill(~usable[:, None], 0.0), lengths)


def checked_labels(label: Tensor | Sequence[int], rows: int, outputs: int) -> Tensor:
    labels = torch.as_tensor(label)
    if labels.numel() == 0:
        labels = labels.long()
    if labels.is_floating_point() or labels.is_complex() or labels.dtype == torch.bool:
        raise ShapeError(f"label has dtype {labels.dtype}; integers were expected: label.long().")
    if tuple(labels.shape) != (rows,):
        raise ShapeError(
            f"label has shape {tuple(labels.shape)}; expected ({rows},), one output a row of x."
        )
    wrong = ((labels < 0) | (labels >= outputs)).nonzero()
    if len(wrong):
        row = int(wrong[0])
        raise UsageError(
            f"label[{row}] is {int(labels[row])}; the map has outputs 0 to {outputs - 1}."
        )
    return labels.detach().long()


def rounding(f: QuadraticMap, x: Tensor, lengths: Tensor) -> Tensor:
    """Return bounds on |computed f_c(x) − f_c(x)|, (rows, out)."""
    # Math: a sum of l products, in any order, errs by at most l·eps/2 of the sum of their sizes; so
    # left_h·x errs by (in + 8)·eps/2·‖left_h‖‖x‖, and an output by what that does to the products.
    down, left, right = f.tensor.down.abs(), f.tensor.left, f.tensor.right
    _, hidden, width = f.sizes
    inner = (width + 8) * EPS * lengths[:, None]
    left_error, right_error = inner * lengths_of(left), inner * lengths_of(right)
    left_size, right_size = (x @ left.T).abs() + left_error, (x @ right.T).abs() + right_error
    products = left_error * right_size + left_size * right_error
    products = products + (hidden + 8) * EPS * left_size * right_size
    bound: Tensor = products @ down.T
    if f.linear is not None:
        bound = bound + (width + 16) * EPS * lengths_of(f.linear) * lengths[:, None]
    return bound if f.constant is None else bound + 16 * EPS * f.constant.abs()


def lengths_of(rows: Tensor) -> Tensor:
    """Return ‖row‖; more where squares would vanish, never less."""
    found = rows.norm(dim=1)
    return torch.where(found < 1e-140, rows.abs().amax(dim=1) * rows.shape[1] ** 0.5, found)


class RadiusStatus(Enum):
    """How the certificate of one input ended."""

    CERTIFIED = "the radius is proven, and an example bounds the true distance from above"
    MISCLASSIFIED = "another output is larger at the input itself"
    TIED = "at the input itself, two outputs cannot be told apart: equal within their rounding"
    UNREACHABLE = "no input whatever is given to another output"
    NO_EXAMPLE = "the radius is proven, but no example was found: the distance may be larger"
    NOT_FINITE = "the input, or the map at it, is not finite: nothing is said"


def statuses(samples: Samples, radius: Tensor, distance: Tensor) -> tuple[RadiusStatus, ...]:
    status = [RadiusStatus.CERTIFIED] * len(radius)
    for kind, where in (  # a later one takes precedence
        (RadiusStatus.NO_EXAMPLE, distance.isinf()),
        (RadiusStatus.UNREACHABLE, radius.isinf()),
        (RadiusStatus.TIED, samples.stays),
        (RadiusStatus.MISCLASSIFIED, samples.lost),
        (RadiusStatus.NOT_FINITE, ~samples.usable),
    ):
        for row in where.nonzero()[:, 0].tolist():
            status[row] = kind
    return tuple(status)
