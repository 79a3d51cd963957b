"""What each input adds to a score of one prediction, exactly, and which pairs interact most."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from bilens.algebra.attribution import attribute
from bilens.algebra.directions import centred_directions, contrast_direction
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.shapley_interactions import top_interactions
from bilens.base.errors import NumericalError
from bilens.records.table_audit import InputAttribution, InputPair

PAIRS = 5
GAP_TOLERANCE = 1e-10  # of the sum of all parts in size
Kind = Literal["class", "contrast", "output"]


def attribute_prediction(
    f: QuadraticMap, x: Tensor, baseline: Tensor, label: int | None
) -> tuple[InputAttribution, ...]:
    """Return the attributions of the predicted class, and of its lead over a rival.

    The rival is the label where the prediction is wrong, and the runner-up where it is right. Of
    a map with one output, the attribution of that.

    Cost: O(hidden · in²) for the pairs.

    Args:
        f: the map, float64; its outputs are the classes.
        x: (in,) float64.
        baseline: x₀, (in,) float64.
        label: the right class, if it is known.

    Raises:
        NumericalError: If the values do not add up to what the map says.
    """
    order = f(x[None])[0].argsort(descending=True).tolist()
    winner, rival, d_out = order[0], None, f.sizes.d_out
    kinds: tuple[Kind, ...] = ("output",)
    read = f
    if d_out > 1:
        kinds = ("class", "contrast")
        rival = order[1] if label is None or label == winner else label
        rows = [centred_directions(d_out, [winner])[0], contrast_direction(d_out, winner, rival)]
        read = f.compose_output(torch.stack(rows))
    values = attribute(read, x[None], baseline)[0]
    here, there = read(x[None])[0], read(baseline[None])[0]
    residuals = values.sum(dim=1) - (here - there)
    for residual, parts in zip(residuals, values, strict=True):
        size = parts.abs().sum() + here.abs().max() + there.abs().max()
        if not abs(residual) <= GAP_TOLERANCE * size:
            raise NumericalError(
                f"the attributions miss f(x) − f(baseline) by {float(residual):.3g}: the products "
                "of the weights cancel beyond what float64 can hold."
            )
    return tuple(
        InputAttribution(
            kind=kind,
            output=winner,
            rival=rival if kind == "contrast" else None,
            score=float(here[place]),
            score_at_baseline=float(there[place]),
            residual=float(residuals[place]),
            values=tuple(values[place].tolist()),
            pairs=strongest_pairs(read, place, x, baseline),
        )
        for place, kind in enumerate(kinds)
    )


def strongest_pairs(
    f: QuadraticMap, output: int, x: Tensor, baseline: Tensor
) -> tuple[InputPair, ...]:
    """Return the pairs of inputs that interact most in one output."""
    direction = torch.zeros(f.sizes.d_out, dtype=x.dtype)
    direction[output] = 1.0
    found = top_interactions(f.form(direction), x, PAIRS, baseline)
    return tuple(
        InputPair(int(first), int(second), float(value))
        for first, second, value in zip(found.first, found.second, found.values, strict=True)
    )
