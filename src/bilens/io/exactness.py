"""How far what was read computes what its source computes, on random inputs."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.base.errors import NumericalError

ROWS = 16
TOLERANCE = 1e-6  # of the largest output; what is wrong is off by far more, rounding by far less


@dataclass(frozen=True)
class Exactness:
    """One layer, or several, as they were read against their source, in float64.

    Attributes:
        layer: its name; the names of all.
        source: what it was compared with, in words.
        rows: random inputs that both were run on.
        max_error: the largest difference of an output.
        relative_error: that, over the largest output.
    """

    layer: str
    source: str
    rows: int
    max_error: float
    relative_error: float

    def __str__(self) -> str:
        return (
            f"{self.layer} as read against {self.source} on {self.rows} random inputs: largest "
            f"error {self.max_error:.1e}, {self.relative_error:.1e} of the largest output."
        )


def together(found: Iterable[Exactness]) -> Exactness:
    """Return several comparisons as one: all names, and the largest errors."""
    found = [*found]
    return Exactness(
        " and ".join(item.layer for item in found),
        " and ".join(dict.fromkeys(item.source for item in found)),
        found[0].rows,
        max(item.max_error for item in found),
        max(item.relative_error for item in found),
    )


@torch.no_grad()
def compare(
    layer: str,
    source: str,
    d_in: int,
    read: Callable[[Tensor], Tensor],
    original: Callable[[Tensor], Tensor],
) -> Exactness:
    """Return how far two functions of d_in inputs differ on standard normal inputs, seed 0.

    Raises:
        NumericalError: If they are not the same function.
    """
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(ROWS, d_in, generator=generator, dtype=torch.float64)
    expected = original(x).double()
    error = float((read(x).double() - expected).abs().max())
    scale = float(expected.abs().max())
    relative = error / scale if scale > 0 else error
    found = Exactness(layer, source, ROWS, error, relative)
    if not relative <= TOLERANCE:
        raise NumericalError(
            f"what was read is another function than the file's: {found} At most {TOLERANCE:g} is "
            "rounding: the file does not mean what its names say, or bilens has a mistake; report "
            "it with the model's config.json."
        )
    return found
