"""What is changed at the input of an MLP: directions, random ones beside them, and where."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.algebra.eigen.decomposition import EigenDecomposition
from bilens.algebra.quadratic_map import QuadraticMap
from bilens.algebra.rotation_null import random_frame
from bilens.interp.causal import Where
from bilens.interp.contrasts import opposed_directions, weighted_space
from bilens.interp.exchange import Exchange, contrast_exchange
from bilens.interp.records import InputDirections

DIRECTIONS = 2  # the leading eigenvectors, the paper's choice
NUM_RANDOM = 20


@dataclass(frozen=True, eq=False)
class Change:
    """Directions of the input of an MLP that are removed, or along which it is moved.

    Attributes:
        along: the directions.
        random: as many others, by which inputs are moved as far.
        where: which inputs are changed.
        exchange: how coordinates are traded to turn a product around; None where they are moved
            by a mean difference instead.
    """

    along: InputDirections
    random: list[InputDirections]
    where: Where
    exchange: Exchange | None = None


def eigen_change(pairs: EigenDecomposition, inputs: Tensor, generator: torch.Generator) -> Change:
    """Return the leading eigenvectors of an output, to be changed at every token.

    Math: with rows V: x ← x − Vᵀ V (x − mean). In a random change a frame R takes the place of
        the outer Vᵀ alone, so that each input moves as far as in the real one.

    Args:
        pairs: of the output latent.
        inputs: (rows, in), what the MLP read.
        generator: draws the frames.
    """
    vectors = pairs.eigenvectors[:DIRECTIONS]
    mean, values = inputs.mean(dim=0), pairs.eigenvalues[:DIRECTIONS]
    frames = [random_frame(len(mean), len(vectors), generator).T for _ in range(NUM_RANDOM)]
    return Change(
        InputDirections(vectors, vectors, mean, values),
        [InputDirections(vectors, frame, mean, values) for frame in frames],
        everywhere,
    )


def contrast_change(
    g: QuadraticMap,
    pair: tuple[int, int],
    inputs: Tensor,
    activations: Tensor,
    where: Where,
    generator: torch.Generator,
) -> Change:
    """Return the product that decides between two outputs, to be changed where one of them speaks.

    These are the directions that the score of the contrast counts: of the largest positive
    eigenvalue and of the most negative one.

    Random directions are orthonormal in the space in which these inputs have unit covariance, as
    the real ones are.

    Args:
        g: the map to the output latents.
        pair: two of them.
        inputs: (rows, in), what the MLP read.
        activations: (rows, outputs), of the latents.
        where: tells at which inputs one of the two is active.
        generator: draws the random directions.
    """
    first, second = pair
    along = opposed_directions(g, first, second, inputs, activations)
    space = weighted_space(g, first, second, inputs, activations)
    random = [space.random(len(along.readers), generator) for _ in range(NUM_RANDOM)]
    exchange = contrast_exchange(g, first, second, along) if len(along.readers) == 2 else None
    return Change(along, random, where, exchange)


def everywhere(x: Tensor) -> Tensor:
    """Return that every input is changed."""
    return torch.ones(x.shape[:-1], dtype=torch.bool)
