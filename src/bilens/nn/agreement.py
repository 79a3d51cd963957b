"""Compares layers, as they were read, with their source: one measure, one table of tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from bilens.algebra.approximation.layer_weights import Layer, each_part, in_dtype, in_float64
from bilens.base.errors import BilensError, NonFiniteError, NumericalError

ROWS = 16
FAR_OUT = (1e2, 1e3, 1e4, 1e5, 1e6)  # scales of inputs beyond those
SCALES = (0.1, 1.0, 5.0, 20.0)  # of inputs, where nobody says what they are like
AS_IT_RUNS = "the module itself, as it runs"
ROUNDINGS = 16  # how much more a module may round than its layers, multiplied out, do
# Of the largest output: what is wrong is off by far more, rounding by far less.
FLOAT64 = 1e-6  # both sides run in float64
ROUNDED = 1e-5  # the source may round to float32 inside
Block = tuple[Tensor, Tensor, Tensor, Tensor]  # made, in float64, rounded, and the rows kept


@dataclass(frozen=True)
class Agreement:
    """A layer as it was read against its source, on the same inputs.

    Attributes:
        layer: its name; the names of several.
        source: what it was compared with, in words.
        rows: inputs that both were run on.
        max_error: the largest difference of an output.
        relative_error: that, over the largest output.
        largest: the largest absolute output of the source.
        tolerance: of `relative_error`.
        row: the input with the largest error, counted from 0.
    """

    layer: str
    source: str
    rows: int
    max_error: float
    relative_error: float
    largest: float
    tolerance: float = FLOAT64
    row: int = 0

    @property
    def passed(self) -> bool:
        """Whether the two are the same function."""
        return self.relative_error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.layer} as read against {self.source} on {self.rows} inputs: largest "
            f"error {self.max_error:.1e}, {self.relative_error:.1e} of the largest output."
        )

    def to_dict(self) -> dict[str, str | int | float]:
        """Return the stored fields as JSON values."""
        stored = ("layer", "source", "rows", "max_error", "relative_error")
        return {name: getattr(self, name) for name in stored}

    def required(self, error: type[BilensError] = NumericalError, because: str = "") -> Agreement:
        """Return the comparison if it has passed, and raise otherwise, with what may be why."""
        if self.passed:
            return self
        raise error(
            f"what was read is another function than its source{because}: {self} At most "
            f"{self.tolerance:.1g} is rounding: the source does not mean what its names say, or "
            "bilens has a mistake; do not use the layer, and report it with the model's "
            "configuration."
        )


def agreement(
    layer: str, source: str, expected: Tensor, found: Tensor, tolerance: float = ROUNDED
) -> Agreement:
    """Compare what a source gives with what was read, both (rows, out)."""
    errors = (expected.double() - found.double()).abs().flatten(1).amax(dim=1)
    error, row = float(errors.max()), int(errors.argmax())
    largest = float(expected.abs().max())
    relative = error / largest if largest > 0 else error
    return Agreement(layer, source, len(expected), error, relative, largest, tolerance, row)


def normal_inputs(width: int, rows: int = ROWS, dtype: torch.dtype = torch.float64) -> Tensor:
    """Return the same standard normal inputs whenever they are asked for, (rows, width)."""
    return torch.randn(rows, width, generator=torch.Generator().manual_seed(0), dtype=dtype)


@torch.no_grad()
def agrees(
    layer: str,
    source: str,
    d_in: int,
    read: Callable[[Tensor], Tensor],
    original: Callable[[Tensor], Tensor],
) -> Agreement:
    """Compare two functions in float64 on normal inputs, and raise if they differ."""
    x = normal_inputs(d_in)
    return agreement(layer, source, original(x), read(x), FLOAT64).required()


def inputs_at_scales(width: int, gaps: bool = False) -> Tensor:
    """Return the same normal inputs at several scales, the first row zero, (rows, width).

    With `gaps` more rows, and entries of others, are zero.
    """
    x = torch.stack([scale * normal_inputs(width) for scale in SCALES])
    x[0, 0] = 0
    if gaps:
        x[:, 0] = 0
        x[:, 1::4, ::2] = 0
        x[:, 2::4, 1::2] = 0
    return x.flatten(0, 1)


def inputs_far_out(width: int) -> Tensor:
    """Return inputs at scales and far beyond, where bounds of inputs show, (rows, width)."""
    return torch.cat([inputs_at_scales(width), *(far * normal_inputs(width) for far in FAR_OUT)])


def inputs_that_reach(matrix: Tensor, shift: Tensor) -> Tensor:
    """Return inputs of which matrix · x + shift has several scales: of the size the model is for.

    They are rounded to float32, since a model may read no more, and followed by plain inputs.
    """
    x = (inputs_at_scales(len(matrix), gaps=True) - shift) @ torch.linalg.pinv(matrix).T
    return torch.cat([x, inputs_at_scales(matrix.shape[1], gaps=True)]).float().double()


def agreement_with_run(
    layer: str,
    layers: Sequence[Layer],
    x: Tensor,
    made: Tensor,
    finish: Callable[[Tensor], Tensor] = lambda y: y,
) -> Agreement:
    """Compare layers one behind the other with what a module made of x in its own arithmetic.

    Math: the module rounds to its dtype after each operation. The layers, run in that dtype too,
        show what such rounding does to the outputs on these inputs: ε = max |y − y₆₄|. The module,
        whose weights were multiplied out, rounds at several times as many places, each of the same
        size: `ROUNDINGS` · (ε + u max |y|) is what it may be off, u the unit of the dtype. All of
        16 rows at a time, so that large inputs do not hide small ones. What float64 does is what
        float32 does, 2²⁹ times smaller.
    """
    coarse = torch.float32 if made.dtype == torch.float64 else made.dtype
    finer = torch.finfo(made.dtype).eps / torch.finfo(coarse).eps
    here = [each_part(one, Tensor.cpu) for one in layers]
    pairs = [(in_float64(one), in_dtype(one, coarse)) for one in here]

    def block(start: int) -> Block:
        rows, given = (part[start : start + ROWS].cpu() for part in (made, x))
        exact, rounded = given.double(), given.to(coarse)
        for wide, narrow in pairs:
            exact, rounded = wide(exact), narrow(rounded)
        exact, rounded = finish(exact), finish(rounded)
        # elsewhere the dtype has no number for the answer
        return rows, exact, rounded, rounded.isfinite().all(dim=-1)

    blocks = map(block, range(0, len(x), ROWS))
    none = f"{layer}: {made.dtype} holds none of the answers."
    return worst_of(layer, AS_IT_RUNS, blocks, none, finer, unit_roundoff(made))


def agreement_with_outputs(
    source: str, x: Tensor, made: Tensor, read: Callable[[Tensor], Tensor]
) -> Agreement:
    """Compare layers with what a file or an object made of x; rows that overflow are left out.

    Math: as `agreement_with_run`, with `read` for the layers, and no less than `ROUNDED`.
    """

    def block(start: int) -> Block:
        given, rows = (part[start : start + ROWS] for part in (x, made))
        return rows, read(given), read(given.to(made.dtype)), rows.isfinite().all(dim=1)

    blocks = map(block, range(0, len(x), ROWS))
    none = f"{source}: none is a finite number, so that nothing is compared."
    unit = torch.finfo(made.dtype).eps / 2
    return worst_of("output", source, blocks, none, 1.0, unit, ROUNDED)


def worst_of(
    layer: str,
    source: str,
    blocks: Iterable[Block],
    none: str,
    finer: float,
    unit: float,
    least: float = 0.0,
) -> Agreement:
    """Return the comparison of rows at a time that came out worst; `none` says there are none."""
    found, count = list[Agreement](), 0
    for made, exact, rounded, kept in blocks:
        count += len(made)
        if bool(kept.any()):
            ours = agreement(layer, source, exact[kept], rounded[kept]).relative_error
            allowed = max(least, ROUNDINGS * (finer * ours + unit))
            one = agreement(layer, source, made[kept], exact[kept], allowed)
            row = count - len(made) + int(kept.nonzero()[one.row])
            found.append(replace(one, row=row))
    if not found:
        raise NonFiniteError(none)
    worst = max(found, key=lambda one: (not one.passed, one.relative_error / one.tolerance))
    return replace(worst, rows=count)


def unit_roundoff(made: Tensor) -> float:
    """Return how far a number may be rounded where a tensor was made."""
    if made.is_cuda and made.dtype == torch.float32:
        backends = torch.backends
        if backends.cuda.matmul.allow_tf32 or backends.cudnn.allow_tf32:
            return 2.0**-11
    return torch.finfo(made.dtype).eps / 2


def together(found: Iterable[Agreement]) -> Agreement:
    """Return several comparisons as one: all names, and the largest errors."""
    found = [*found]
    return Agreement(
        " and ".join(one.layer for one in found),
        " and ".join(dict.fromkeys(one.source for one in found)),
        found[0].rows,
        largest(one.max_error for one in found),
        largest(one.relative_error for one in found),
        largest(one.largest for one in found),
        min(one.tolerance for one in found),
    )


def largest(values: Iterable[float]) -> float:
    """Return the largest value; NaN where there is any, which `max` passes over."""
    return max(values, key=lambda value: (math.isnan(value), value))
