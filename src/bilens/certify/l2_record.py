"""The record of certified radii, and what is read from it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.checks import check_type
from bilens.base.errors import UsageError
from bilens.certify.crossing import margins
from bilens.certify.status import RadiusStatus


@dataclass(frozen=True, eq=False)
class L2Radius:
    """How far each input can move before the map may give it to another output.

    The radius is proven for the map with these weights in exact arithmetic, whatever the dtype of
    the weights: rounding is counted against it. Lengths are in the units of the input.

    Attributes:
        radius: (rows,), no input at a smaller distance is lost to any rival; 0 where the input
            itself is lost or tied, inf where nothing is lost, NaN where the status is NOT_FINITE.
        rival: (rows,), the output with the smallest radius; −1 where nothing is finite.
        example: (rows, in), an input that is lost, evaluated in float64; x itself where that is
            lost, NaN where there is none.
        distance: (rows,), ‖example − x‖; inf where there is none.
        per_rival: (rows, out), the radius against each output alone; inf for the label.
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

    @property
    def gap(self) -> Tensor:
        """(distance − radius) / distance, (rows,): 0 is exact, 1 says nothing, NaN not finite."""
        gap = torch.where(self.distance.isinf(), 1.0, 1 - self.radius / self.distance)
        return torch.where(self.radius == self.distance, 0.0, gap)


def certified_accuracy(record: L2Radius, radii: Tensor | Sequence[float]) -> Tensor:
    """Return the share of inputs that no change of length up to each radius can flip, (num,).

    Inputs that are misclassified, tied or not finite count as not certified.

    Raises:
        UsageError: If there is no input, or a radius is negative or NaN.
    """
    check_type("record", record, L2Radius, "pass what l2_radius returned")
    if len(record.radius) == 0:
        raise UsageError("the record holds no input: an accuracy needs at least one.")
    levels = torch.as_tensor(radii, dtype=torch.float64).reshape(-1)
    if not bool((levels >= 0).all()):
        raise UsageError(f"radii must not be negative or NaN, got {radii!r}.")
    return (record.radius > levels[:, None]).double().mean(dim=1)


def projected_margin(
    f: QuadraticMap, record: L2Radius, low: float = 0.0, high: float = 1.0
) -> Tensor:
    """Return the margin of each example after it is clamped to the box [low, high]ⁿ, (rows,).

    The radius ignores the box and is a lower bound inside it. Where this margin is negative, the
    clamped example is a counterexample in the box; where it is positive, the box helped.

    Returns:
        f_label − the largest other output at the clamped example; NaN where there is no example.

    Raises:
        UsageError: If low is not below high.
    """
    check_type("record", record, L2Radius, "pass what l2_radius returned")
    if not low < high:
        raise UsageError(f"the box needs low < high, got {low} and {high}.")
    f = f.detach().to(torch.float64)
    return margins(f, record.example.clamp(low, high), record.label).amin(dim=1)
