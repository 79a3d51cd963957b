"""Turning around the product that decides between two output latents."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.quadratic_map import QuadraticMap
from bilens.base.errors import ShapeError, UsageError
from bilens.interp.causal import Edit, Where
from bilens.interp.records import InputDirections


@dataclass(frozen=True, eq=False)
class Exchange:
    """Two directions of opposed eigenvalues, whose coordinates can be traded.

    Attributes:
        along: the direction of a positive eigenvalue and that of a negative one.
        centre: (2,), the coordinates at which what they contribute is stationary.
        sign: ±1, of the traded coordinates.
    """

    along: InputDirections
    centre: Tensor
    sign: float

    def edit(self, patterns: Tensor, where: Where) -> Edit:
        """Return an edit after which the directions contribute the opposite.

        Math: with c the coordinates less the centre, λ₊ c₊² − |λ₋| c₋² is turned around by
            c₊ ← ± √(|λ₋| / λ₊) c₋ and c₋ ← ± √(λ₊ / |λ₋|) c₊: of the two factors
            √λ₊ c₊ ± √|λ₋| c₋ one changes its sign, and the other stays.

        Args:
            patterns: (2, in), along which inputs move as the coordinates do: those of the
                directions, or random ones.
            where: which inputs; elsewhere nothing is touched.

        Raises:
            ShapeError: If the patterns are not two directions of the input.
        """
        if patterns.shape != self.along.patterns.shape:
            raise ShapeError(
                f"patterns have shape {tuple(patterns.shape)}; "
                f"{tuple(self.along.patterns.shape)} was expected."
            )
        ratio = self.sign * (self.along.eigenvalues[1].abs() / self.along.eigenvalues[0]).sqrt()

        def edit(x: Tensor) -> Tensor:
            readers, mean = self.along.readers.to(x), self.along.mean.to(x)
            c = (x - mean) @ readers.T - self.centre.to(x)
            traded = torch.stack([ratio.to(x) * c[..., 1], c[..., 0] / ratio.to(x)], dim=-1)
            moved = x + (traded - c) @ patterns.to(x)
            return torch.where(where(x)[..., None], moved, x)

        return edit


def contrast_exchange(g: QuadraticMap, first: int, second: int, along: InputDirections) -> Exchange:
    """Return how to turn around what two opposed directions add to g_a − g_b.

    Math: along the patterns, g_a − g_b is Σ λ_i c_i² + slope · c + constant, stationary at
        c_i = −slope_i / 2λ_i. Of the two signs the one is taken that moves the inputs less that
        the directions come from; as their coordinates are centred and not correlated, it is that
        of the product of the two stationary coordinates.
    Cost: O(hidden · in).

    Args:
        g: `latent_map`.
        first: a.
        second: b.
        along: `opposed_directions` of the pair.

    Raises:
        UsageError: If the directions are not one of a positive eigenvalue and one of a negative.
    """
    values = along.eigenvalues
    if len(values) != 2 or not float(values[0]) > 0 > float(values[1]):
        raise UsageError(
            f"the directions have the eigenvalues {values.tolist()}; one above zero and then one "
            "below were expected."
        )
    difference = torch.zeros(g.sizes.d_out, dtype=torch.float64)
    difference[first], difference[second] = 1.0, -1.0
    with torch.no_grad():
        form = g.detach().to(torch.float64).form(difference)
        slope = (form(along.mean + along.patterns) - form(along.mean - along.patterns)) / 2
    centre = -slope / (2 * values)
    return Exchange(along, centre, -1.0 if float(centre.prod()) < 0 else 1.0)
