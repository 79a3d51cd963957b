"""Random dictionaries: what the same steps find behind a layer where no direction was learnt.

A random dictionary is the autoencoder behind an MLP with all of its latents turned together, at
random, in units in which what the MLP writes has the covariance 1. Its pre-activations have the
covariances of the trained ones, and each latent is active at as many tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from bilens.interp.trace_options import NUM_DICTIONARIES as NUM_DICTIONARIES

LEVEL = 0.05  # of the share of cases in which chance alone is taken for a circuit
LEAST_VARIANCE = 1e-6  # of the largest: directions that hardly vary are left as they are


@dataclass(frozen=True, eq=False)
class RandomDictionary:
    """Latents in random directions, each active above a threshold of its own."""

    encoder: Tensor  # (latents, out)
    offset: Tensor  # (latents,)
    decoder: Tensor  # (latents, out)

    def encode(self, outputs: Tensor) -> Tensor:
        """Return the activations of what the MLP wrote, (..., out) → (..., latents)."""
        return (outputs @ self.encoder.T + self.offset).relu()


def random_dictionary(
    encoder: Tensor,
    decoder: Tensor,
    outputs: Tensor,
    num_active: Tensor,
    generator: torch.Generator,
) -> RandomDictionary:
    """Return the directions of a dictionary turned at random.

    `num_active` (latents,) says at how many of the `outputs` (n, out) each latent is active.
    """
    turn, back = random_turn(outputs, generator)
    turned = encoder.detach().double() @ turn
    offset = -activity_thresholds(outputs @ turned.T, num_active)
    return RandomDictionary(turned, offset, decoder.detach().double() @ back.T)


def random_turn(outputs: Tensor, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Return a random T with T C Tᵀ = C, C the covariance of outputs (n, out), and T⁻¹."""
    # Math: T = C^½ O C^{-½}. O is the polar factor of a Gaussian matrix seen in the eigenvectors of
    # C, which does not depend on their signs: the same seed gives the same T on every processor.
    width = outputs.shape[1]
    gauss = torch.randn(width, width, generator=generator, dtype=torch.float64).to(outputs)
    centred = outputs - outputs.mean(dim=0)
    variances, axes = torch.linalg.eigh(centred.T @ centred / len(outputs))
    kept = variances > LEAST_VARIANCE * variances[-1]
    axes, deviations = axes[:, kept], variances[kept].sqrt()
    first, _, last = torch.linalg.svd(axes.T @ gauss @ axes)
    rest = torch.eye(width).to(axes) - axes @ axes.T

    def turned(rotation: Tensor) -> Tensor:
        found: Tensor = (axes * deviations) @ rotation @ (axes / deviations).T + rest
        return found

    return turned(first @ last), turned((first @ last).T)


def activity_thresholds(values: Tensor, num_active: Tensor) -> Tensor:
    """Return the level that as many values of each column (n, latents) exceed."""
    falling = values.sort(dim=0, descending=True).values
    falling = torch.cat([falling[:1], falling, falling[-1:] - 1])
    level: Tensor = falling.gather(0, torch.stack([num_active, num_active + 1])).mean(dim=0)
    return level


def chance_of(value: float, found: Sequence[float | None]) -> float:
    """Return how often chance alone reaches a value: it counts as one more random dictionary.

    None stands for a random dictionary in which there was nothing to measure.
    """
    reached = sum(one is not None and one >= value for one in found)
    return (1 + reached) / (1 + len(found))
