"""Into how many directions a change would go if it were noise of the same size in every weight."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.concentration import effective_rank
from bilens.algebra.gram.inner_products import input_gram, output_gram
from bilens.algebra.map_changes import noise_change, noise_draw
from bilens.algebra.quadratic_map import QuadraticMap

DRAWS = 5  # of noise, where its mean does not stand for one draw
WIDE = 2  # hidden units for each input, from which the mean does


@dataclass(frozen=True)
class ModeChance:
    """What singular values say of a change that is noise."""

    effective_rank: float
    top_share: float


def chance_of_change(
    f: QuadraticMap,
    g: QuadraticMap,
    seed: int,
    embeddings: tuple[Tensor, Tensor] | None,
) -> tuple[ModeChance, ModeChance] | None:
    """Return the level of chance along the outputs and along the inputs.

    None where the maps have other numbers of hidden units, or nothing changed.

    Cost: O(hidden · (in² + out²) + in³ + out³) for layers with many hidden units, and otherwise
        DRAWS times O(hidden² · (in + out)).
    """
    if f.sizes != g.sizes:
        return None
    if embeddings is None and f.sizes.d_hidden >= WIDE * f.sizes.d_in:
        mean = noise_change(f, g)
        grams = [(mean.output_gram, mean.input_gram)]
    else:
        generator = torch.Generator().manual_seed(seed)
        grams = [gram_pair(noise_draw(f, g, generator, embeddings)) for _ in range(DRAWS)]
    if float(grams[0][0].trace()) == 0:
        return None
    outputs, inputs = (torch.stack(each) for each in zip(*grams, strict=True))
    return mode_chance(outputs), mode_chance(inputs)


def gram_pair(f: QuadraticMap) -> tuple[Tensor, Tensor]:
    """Return the Gram matrices of a map along its outputs and its inputs."""
    tensor = f.tensor
    factors = (tensor.down, tensor.left, tensor.right)
    return output_gram(*factors, *factors), input_gram(*factors)


def mode_chance(grams: Tensor) -> ModeChance:
    """Return the mean over Gram matrices, (draws, n, n)."""
    squares = torch.linalg.eigvalsh(grams).clamp(min=0)
    share = squares[:, -1] / squares.sum(dim=1)
    return ModeChance(float(effective_rank(squares.sqrt()).mean()), float(share.mean()))
