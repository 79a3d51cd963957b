"""Does what was read compute what its source computes? One measure and one table of tolerances."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.base.errors import BilensError, NumericalError

ROWS = 16
# Of the largest output: what is wrong is off by far more, rounding by far less.
FLOAT64 = 1e-6  # both sides run in float64
ROUNDED = 1e-5  # the source may round to float32 inside
TOP_K = 1e-3  # rounding may choose another latent of two that are nearly equal


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
    """

    layer: str
    source: str
    rows: int
    max_error: float
    relative_error: float
    largest: float
    tolerance: float = FLOAT64

    @property
    def passed(self) -> bool:
        """Whether the two are the same function."""
        return self.relative_error <= self.tolerance

    def __str__(self) -> str:
        return (
            f"{self.layer} as read against {self.source} on {self.rows} random inputs: largest "
            f"error {self.max_error:.1e}, {self.relative_error:.1e} of the largest output."
        )

    def to_dict(self) -> dict[str, str | int | float]:
        """Return what is stored of it, as JSON values."""
        return {
            "layer": self.layer,
            "source": self.source,
            "rows": self.rows,
            "max_error": self.max_error,
            "relative_error": self.relative_error,
        }

    def required(self, error: type[BilensError] = NumericalError) -> Agreement:
        """Return the comparison if it has passed, and raise otherwise."""
        if self.passed:
            return self
        raise error(
            f"what was read is another function than its source: {self} At most "
            f"{self.tolerance:g} is rounding: the source does not mean what its names say, or "
            "bilens has a mistake; do not use the layer, and report it with the model's "
            "configuration."
        )


def agreement(
    layer: str, source: str, expected: Tensor, found: Tensor, tolerance: float = ROUNDED
) -> Agreement:
    """Compare what a source gives with what was read, both (rows, out)."""
    error = float((expected.double() - found.double()).abs().max())
    largest = float(expected.abs().max())
    relative = error / largest if largest > 0 else error
    return Agreement(layer, source, len(expected), error, relative, largest, tolerance)


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
